"""The registry in a folder: versions, aliases, rollback, history, and what is refused."""

import json
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from commands import batchland
from toys import COLOURS, picture, toy_card, write_toy_model

from batchland.doctor.job import check_job
from batchland.errors import LockedError, ModelError, UsageError
from batchland.models.mlflow_registry import find_in_mlflow
from batchland.models.registry import FolderRegistry, Reference, promoted
from batchland.models.session import open_session
from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_run


@pytest.fixture
def registry(tmp_path, toy_model):
    """Three versions of `toy`, all different files."""
    found = FolderRegistry(tmp_path / "models")
    for number in range(3):
        card = toy_card().model_copy(update={"created_at": f"2026-11-2{number}T00:00:00Z"})
        found.add("toy", write_toy_model(tmp_path / "new.onnx", card), note=f"try {number}")
    return found


def changes(registry):
    return [(each.action, each.alias, each.before, each.version) for each in registry.read("toy").history]


def test_references_and_paths():
    assert Reference.parse("landmarks@production") == Reference("landmarks", "production")
    assert str(Reference.parse("a.b-c@12")) == "a.b-c@12"
    for path in ("models/landmarks@production", "toy.onnx", "a@b@c", "@x", "x@", "toy@v1.onnx"):
        assert Reference.parse(path) is None


def test_versions_are_copies_with_their_canaries(tmp_path, toy_model, registry):
    assert [version.version for version in registry.read("toy").versions] == [1, 2, 3]
    shutil.copyfile(toy_model, tmp_path / "other.onnx")
    (tmp_path / "other.canaries.parquet").write_bytes(b"canaries")
    added = registry.add("other", tmp_path / "other.onnx")
    assert registry.names() == ["other", "toy"]
    assert sorted(path.name for path in (tmp_path / "models/other/1").iterdir()) == [
        "other.canaries.parquet",
        "other.onnx",
    ]
    assert registry.find(Reference("other", "1")).sha256 == added.sha256
    assert (added.architecture, added.classes, added.source) == ("dominant-colour", 3, str(tmp_path / "other.onnx"))
    with pytest.raises(UsageError, match=r"other.onnx: is version 1 of other already"):
        registry.add("other", tmp_path / "other.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        registry.add("other", tmp_path / "broken.onnx")
    assert [path.name for path in sorted((tmp_path / "models/other").iterdir())] == ["1", "registry.json"]


def test_promote_and_roll_back_as_often_as_it_was_promoted(registry):
    for number in (1, 2, 3):
        registry.promote(Reference("toy", str(number)), "production", reason=f"r{number}")
    assert registry.find(Reference("toy", "production")).version == "3"
    assert registry.rollback("toy", "production").version == 2
    assert registry.rollback("toy", "production", "worse").version == 1
    with pytest.raises(UsageError, match=r"toy@production cannot be rolled back; it had no version before 1"):
        registry.rollback("toy", "production")
    registry.promote(Reference("toy", "3"), "production")
    assert registry.rollback("toy", "production").version == 1
    assert changes(registry) == [
        ("promote", "production", None, 1),
        ("promote", "production", 1, 2),
        ("promote", "production", 2, 3),
        ("rollback", "production", 3, 2),
        ("rollback", "production", 2, 1),
        ("promote", "production", 1, 3),
        ("rollback", "production", 3, 1),
    ]
    assert promoted(registry.read("toy"), "production") == [1]
    who = registry.read("toy").history[0].by
    assert "@" in who
    assert registry.read("toy").history[4].reason == "worse"


def test_a_version_that_has_the_alias_is_not_promoted_again(registry):
    toy, folder = ("models", "promote", "toy@2", "--unchecked"), registry.folder
    for number in (1, 2):
        registry.promote(Reference("toy", str(number)), "production")
    again = batchland(*toy, "--registry", folder)
    assert (again.exit_code, again.stdout, again.stderr) == (
        2,
        "",
        f"batchland: {folder}: toy 2 already has the alias production\n",
    )
    assert len(registry.read("toy").history) == 2
    registry.promote(Reference("toy", "2"), "production")  # histories may have such changes
    registry._change(registry.read("toy"), "rollback", "production", 2, "")
    assert promoted(registry.read("toy"), "production") == [1, 2]
    assert registry.rollback("toy", "production").version == 1
    assert batchland(*toy, "--registry", folder).stdout == "toy@production is now version 2 (before: 1)\n"


@pytest.mark.parametrize("command", [("list",), ("show", "toy"), ("rollback", "toy")])
def test_a_missing_registry_is_an_error(tmp_path, command):
    result = batchland("models", *command, "--registry", tmp_path / "nope")
    assert (result.exit_code, result.stdout, result.stderr) == (
        2,
        "",
        f"batchland: {tmp_path}/nope: is not a folder, so there is no registry; `batchland models add` makes one\n",
    )
    assert not (tmp_path / "nope").exists()
    (tmp_path / "empty").mkdir()
    listed = batchland("models", "list", "--registry", tmp_path / "empty")
    assert (listed.exit_code, listed.stdout) == (0, f"{tmp_path}/empty: no models\n")


def test_errors_name_what_is_missing(registry):
    registry.promote(Reference("toy", "2"), "staging")
    for reference, message in (
        (Reference("toy@1", "1"), "there is no model toy@1 in this registry; did you mean toy?"),
        (Reference("toi", "production"), "there is no model toi in this registry; it has toy"),
        (Reference("toy", "production"), "toy has no alias production; versions: 1, 2, 3; aliases: staging"),
        (Reference("toy", "4"), "toy has no version 4; versions: 1, 2, 3; aliases: staging"),
    ):
        with pytest.raises(ModelError) as caught:
            registry.find(reference)
        assert str(caught.value) == f"{registry.folder}: {message}"
    registry.file("toy", 2).unlink()
    with pytest.raises(ModelError, match=r"toy.onnx: is missing in the registry; restore it"):
        registry.find(Reference("toy", "staging"))
    for alias in ("7", "a/b", ""):
        with pytest.raises(UsageError, match="should have only letters"):
            registry.promote(Reference("toy", "1"), alias)


def _promote(folder, number):
    FolderRegistry(folder).promote(Reference("toy", str(number)), f"alias-{number}")


def test_processes_that_change_a_model_at_once_wait_for_each_other(registry):
    with ProcessPoolExecutor(3) as pool:
        list(pool.map(_promote, [registry.folder] * 3, (1, 2, 3)))
    assert dict(sorted(registry.read("toy").aliases.items())) == {"alias-1": 1, "alias-2": 2, "alias-3": 3}
    assert len(registry.read("toy").history) == 3


def test_an_alias_that_changes_during_a_promotion_or_a_rollback_is_not_moved(registry):
    for number in (1, 2):
        registry.promote(Reference("toy", str(number)), "production")
    seen = registry.read("toy")
    registry.rollback("toy", "production")
    with pytest.raises(LockedError, match="toy@production became version 1 meanwhile"):
        registry.promote(Reference("toy", "3"), "production", checks=("passed",), seen=seen)
    with pytest.raises(LockedError, match="became version 1 meanwhile"):
        registry._change(seen, "rollback", "production", 1, "")
    assert changes(registry)[2:] == [("rollback", "production", 2, 1)]


# --- promotion with a labelled set, and jobs ---


@pytest.fixture
def site(tmp_path, registry):
    """Labelled pictures, a registry whose version 4 confuses two classes, and a job of `toy@production`."""
    for folder, colour in COLOURS.items():
        (tmp_path / "labelled" / folder).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "labelled" / folder / f"{number}.jpg").write_bytes(picture(colour))
    swapped = toy_card(folders=("01.Green_Hill", "00.Red_Tower", "02.Blue_Lake"))
    registry.add("toy", write_toy_model(tmp_path / "new.onnx", swapped))
    (tmp_path / "toy.toml").write_text(
        'images = "labelled"\nmodel = "toy@production"\noutput = "out"\ndevice = "cpu"\ndate = "today"\n'
        'monitor = {action = "off"}\n'
    )
    return tmp_path


def promote(site, version, *more):
    return batchland(
        "models", "promote", f"toy@{version}", "--registry", site / "models", "--labels", site / "labelled",
        "--device", "cpu", *more,
    )  # fmt: skip


def test_a_promotion_is_checked_on_the_labelled_set(site):
    registry = FolderRegistry(site / "models")
    first = promote(site, 1, "--gate", "top1 < 90%", "--gate", "drop(top1) > 1%")
    assert (first.exit_code, first.stdout.splitlines()[:3]) == (
        0,
        [
            "toy@production is now version 1",
            f"  top-1 accuracy 100.0% on 12 images of {site}/labelled",
            "  passed: top1 is 100% (fails if top1 < 90%)",
        ],
    )
    second = promote(site, 2, "--reason", "CR 12")
    assert (second.exit_code, second.stdout.splitlines()[0]) == (0, "toy@production is now version 2 (before: 1)")
    refused = promote(site, 4)
    assert (refused.exit_code, refused.stderr) == (4, "batchland: a gate failed, see above\n")
    assert refused.stdout.splitlines()[:3] == [
        "toy@production is not moved to version 4 (stays: 2)",
        f"  top-1 accuracy 33.3% on 12 images of {site}/labelled",
        "  failed: top1 went from 100% to 33.33% (fails if drop(top1) > 1%)",
    ]
    report = refused.stdout.splitlines()[3].removeprefix("report: ")
    assert Path(report).read_text().startswith("<!doctype html>")
    assert registry.find(Reference("toy", "production")).version == "2"
    assert changes(registry) == [
        ("promote", "production", None, 1),
        ("promote", "production", 1, 2),
        ("refuse", "production", 2, 4),
    ]
    assert batchland("models", "rollback", "toy", "--registry", site / "models").stdout == (
        "toy@production is again version 1 (before: 2)\n"
    )
    usage = batchland("models", "promote", "toy@2", "--registry", site / "models")
    assert (usage.exit_code, usage.stderr.splitlines()[-1]) == (
        2,
        "Error: give --labels with a labelled set, or --unchecked to promote without a check",
    )
    unchecked = batchland("models", "promote", "toy@2", "--registry", site / "models", "--unchecked")
    assert unchecked.stdout == "toy@production is now version 2 (before: 1)\n"
    shown = batchland("models", "show", "toy", "--registry", site / "models").stdout
    assert "refuse production 2 -> 4" in shown
    assert "promote production 1 -> 2: CR 12" in shown
    listed = batchland("models", "list", "--registry", site / "models", "--json")
    assert json.loads(listed.stdout)["models"][0]["aliases"] == {"production": 2}
    table = batchland("models", "list", "--registry", site / "models").stdout.splitlines()
    assert [line.split()[:2] for line in table] == [["model", "version"], *(["toy", str(n)] for n in (1, 2, 3, 4))]
    assert table[2].split()[2] == "production"


def test_a_job_uses_the_alias_and_records_the_version(site):
    missing = batchland("run", site / "toy.toml")
    assert (missing.exit_code, missing.stderr.splitlines()[-1].partition(": failed: ")[2]) == (
        5,
        f"{site}/models: toy has no alias production; versions: 1, 2, 3, 4; aliases: none; "
        "`batchland models promote` gives one",
    )
    registry = FolderRegistry(site / "models")
    registry.promote(Reference("toy", "1"), "production")
    job = load_job(site / "toy.toml")
    night = job.night(date.today())
    assert plan_night(job, night).lines[1] == (f"model toy: toy@production, version 1: {site}/models/toy/1/toy.onnx")
    first = batchland("run", site / "toy.toml")
    assert "; scored by version 1 of toy@production; " in first.stdout
    record = read_run(site / "runs/toy/latest").models[0]
    assert record.version.model_dump() == {
        "registry": str(site / "models"),
        "reference": "toy@production",
        "version": "1",
    }
    assert record.model.sha256 == registry.read("toy").versions[0].sha256
    (site / "runs/toy/latest/run.json").rename(site / "run.json.old")
    batchland("run", site / "toy.toml")
    assert read_run(site / "runs/toy/latest").models[0].version.version == "1"
    # The night stays that of version 1 when the alias moves, and a forced run takes the new one.
    registry.promote(Reference("toy", "2"), "production")
    assert "toy: kept, 12 images" in batchland("run", site / "toy.toml").stdout
    assert read_run(site / "runs/toy/latest").models[0].version.version == "1"
    batchland("run", site / "toy.toml", "--force")
    assert read_run(site / "runs/toy/latest").models[0].version.version == "2"


def test_a_version_whose_file_was_replaced_does_not_answer(site):
    """Else the record would name a version that did not answer."""
    registry = FolderRegistry(site / "models")
    registry.promote(Reference("toy", "1"), "production")
    first, second = registry.read("toy").versions[:2]
    shutil.copyfile(registry.file("toy", 2), registry.file("toy", 1))
    message = (
        f"{site}/models/toy/1/toy.onnx: was replaced after it was added as version 1 (sha256 {second.sha256[:12]}, not "
        f"{first.sha256[:12]}); restore it, or add the new file with `batchland models add` and promote that"
    )
    night = batchland("run", site / "toy.toml")
    assert (night.exit_code, night.stderr.splitlines()[-1].partition(": failed: ")[2]) == (5, message)
    checked = batchland("job", "check", site / "toy.toml")
    assert (checked.exit_code, f"  fail: {message}" in checked.stdout.splitlines()) == (5, True)
    (model,) = [each for each in check_job(site / "toy.toml", str) if each.name == "model toy"]
    assert (model.state, model.found) == ("fail", message)


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="mlflow is installed")
def test_an_mlflow_registry_needs_its_extra(site):
    result = batchland("run", site / "toy.toml", "--set", "registry=http://user:secret@127.0.0.1:1")
    assert (result.exit_code, result.stderr.splitlines()[-1].partition(": failed: ")[2]) == (
        5,
        "http://127.0.0.1:1: an MLflow registry needs the extra mlflow; install it",
    )
    written = [path.read_text() for path in (site / "runs").rglob("*.json*")]
    assert not any("secret" in text for text in written)


def test_weights_that_mlflow_keeps_in_a_second_file_are_put_back(site, monkeypatch, tmp_path):
    """As mlflow.onnx.log_model stores a model, by a stand-in for the package and its server."""

    def download(artifact_uri, dst_path):
        Path(dst_path, "sub").mkdir(parents=True)
        model = onnx.load(site / "models/toy/1/toy.onnx")
        onnx.save(
            model, Path(dst_path, "sub/model.onnx"), save_as_external_data=True, size_threshold=0, location="w.data"
        )
        asked.append(artifact_uri)
        return dst_path

    class Client:
        def __init__(self, *urls):
            assert urls == ("http://127.0.0.1:1",) * 2

        def get_model_version_by_alias(self, name, alias):
            return SimpleNamespace(version={("toy", "production"): 7}[name, alias])

    asked = []
    mlflow = SimpleNamespace(
        MlflowClient=Client, MlflowException=KeyError, set_tracking_uri=str, set_registry_uri=str,
        artifacts=SimpleNamespace(download_artifacts=download),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for _ in range(2):  # from the cache, the second time
        found = find_in_mlflow("http://127.0.0.1:1", Reference("toy", "production"))
    assert (asked, found.version, [path.name for path in found.file.parent.iterdir()]) == (
        ["models:/toy/7"], "7", ["toy.onnx"],
    )  # fmt: skip
    card = open_session(found.file, "cpu").card
    assert card == open_session(site / "models/toy/1/toy.onnx", "cpu").card


def test_a_lock_that_is_a_link_is_named_and_not_followed(tmp_path, toy_model):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "registry/m").mkdir(parents=True)
    (tmp_path / "registry/m/.lock").symlink_to(tmp_path / "victim")
    result = batchland("models", "add", str(toy_model), "--name", "m", "--registry", str(tmp_path / "registry"))
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        74,
        f"batchland: {tmp_path}/registry/m/.lock: cannot be read or written (.lock is a link or not a regular file; "
        "remove it); fix this, then run the same command again",
    )
    assert (tmp_path / "victim").read_text() == "precious"
