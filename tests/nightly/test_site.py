"""`batchland init`: a new site runs its first night after a model and images are put into it."""

import errno
import os
import re
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
from commands import batchland

from batchland.nightly.job import load_job

REPOSITORY = Path(__file__).parents[2]
YESTERDAY = date.today() - timedelta(days=1)


def test_a_new_site_has_a_job_that_runs(tmp_path: Path, toy_model: Path, colour_folders: Path) -> None:
    site = tmp_path / "site"
    made = batchland("init", site)
    assert (made.exit_code, made.stdout, made.stderr) == (
        0,
        f"{site}: made README.md, jobs/job.schema.json, jobs/nightly.toml; read {site}/README.md\n",
        "",
    )
    assert sorted(path.name for path in site.iterdir()) == [
        "README.md", "incoming", "jobs", "models", "predictions", "runs"
    ]  # fmt: skip
    job = site / "jobs" / "nightly.toml"
    early = batchland("job", "check", job)
    assert early.exit_code == 5
    assert "models/current.onnx" in early.stdout
    shutil.copy(toy_model, site / "models" / "current.onnx")
    shutil.copytree(colour_folders, site / "incoming" / str(YESTERDAY))
    late = batchland("job", "check", job)  # the images are as new as a delivery that is still being copied
    assert (late.exit_code, late.stdout.count("  fail: ")) == (66, 1)
    assert batchland("job", "check", job, "--set", "settle=0s").exit_code == 0
    same_colours = ["--set", 'monitor.action="off"']  # which real photos are not
    night = batchland("run", job, "--set", "settle=0s", *same_colours)
    assert (night.exit_code, night.stdout.count("9 images, 9 ok, 0 failed")) == (0, 1)
    assert (site / "predictions" / f"date={YESTERDAY}" / "_manifest.json").exists()
    assert (site / "runs" / "nightly" / str(YESTERDAY) / "run.json").exists()


def test_a_folder_that_is_not_empty_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    result = batchland("init", tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (f"batchland: {tmp_path}: exists and is not an empty folder; give a new one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("job", ["jobs/nightly.toml", "batchland/nightly/site_files/jobs/nightly.toml"])
def test_keys_and_tables_of_a_job_file_can_be_uncommented_where_they_are(job: str, tmp_path: Path) -> None:
    text = (REPOSITORY / job).read_text().replace("${file:/run/secrets/smtp}", "secret")
    whole, count = re.subn(r"^# (?=\[|[a-z_]+ = )", "", text, flags=re.MULTILINE)
    (tmp_path / "nightly.toml").write_text(whole)
    chosen = load_job(tmp_path / "nightly.toml")
    assert count > 10
    assert chosen.metrics == Path("/var/lib/node_exporter/textfile/batchland_nightly.prom")
    assert chosen.notify is not None
    assert None not in (chosen.notify.mail, chosen.heartbeat, chosen.retry, chosen.retention)


def test_a_mounted_folder_becomes_a_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = tmp_path / "site"
    (mounted / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == mounted)
    number = mounted.stat().st_ino
    write_text, written = Path.write_text, []

    def fail_once(path: Path, text: str) -> int:
        written.append(path)
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text)

    monkeypatch.setattr(Path, "write_text", fail_once)
    full = batchland("init", mounted)
    assert (full.exit_code, full.stderr) == (
        74,
        f"batchland: {mounted}: cannot be written (No space left on device); free some space, or write elsewhere\n",
    )
    assert os.listdir(mounted) == ["lost+found"]
    assert batchland("init", mounted).exit_code == 0
    assert sorted(path.name for path in mounted.iterdir()) == [
        "README.md", "incoming", "jobs", "lost+found", "models", "predictions", "runs"
    ]  # fmt: skip
    assert (mounted.stat().st_ino, os.listdir(tmp_path)) == (number, ["site"])


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_an_empty_or_missing_folder_is_followed(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "disk").mkdir()
    (tmp_path / "site").symlink_to("disk")
    assert batchland("init", tmp_path / "site").exit_code == 0
    assert (tmp_path / "site").is_symlink()
    assert (tmp_path / "disk" / "jobs" / "nightly.toml").exists()
    assert sorted(os.listdir(tmp_path)) == ["disk", "site"]


def test_a_full_disk_is_named_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    result = batchland("init", tmp_path / "site")
    reason = "No space left on device); free some space, or write elsewhere"
    expected = f"batchland: {tmp_path}/site: cannot be written ({reason}\n"
    assert (result.exit_code, result.stderr, os.listdir(tmp_path)) == (74, expected, [])


def test_the_readme_of_a_site_names_commands_that_exist(tmp_path: Path) -> None:
    batchland("init", tmp_path / "site")
    lines = (tmp_path / "site" / "README.md").read_text().splitlines()
    commands = [line.split()[1:] for line in lines if line.strip().startswith("batchland ")]
    assert len(commands) == 10
    for words in commands:
        names = words[:2] if words[0] in ("job", "cron") else words[:1]
        assert batchland(*names, "--help").exit_code == 0
