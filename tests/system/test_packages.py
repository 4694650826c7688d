"""The versions of packages are those that importlib.metadata finds."""

from importlib.metadata import distributions, version

from batchland.system.packages import _installed, installed_version


def test_versions_of_all_installed_packages():
    names = {each.name for each in distributions()}
    assert {name: installed_version(name) for name in names} == {name: version(name) for name in names}
    assert installed_version("no-such-package") is None


def test_versions_in_names_of_folders(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, name in (
        (first, "Py_Arrow.x-26.0.1.dist-info"), (first, "torch-2.9.0+cu130.dist-info"),
        (second, "torch-1.0.dist-info"), (second, "numpy-1.26.4-py3.12.egg-info"), (second, "six-1.16.0.egg-info"),
        (second, "readme-info"), (second, "wheel-1.0.txt"),
    ):  # fmt: skip
        (folder / name).mkdir(parents=True)
    (tmp_path / "packages.zip").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path / each) for each in ("missing", "packages.zip", "first", "second")])
    expected = {"py-arrow-x": "26.0.1", "torch": "2.9.0+cu130", "numpy": "1.26.4", "six": "1.16.0"}
    assert _installed.__wrapped__() == expected
