"""SIGKILL at random moments, then the same command again: the same bytes as an undisturbed run, every time."""

import random
import shutil
import signal
import sys
import time
from pathlib import Path

import forks
import pytest
from slow_score import SLOW_SCORE
from toys import COLOURS, contents, options, picture, toy_card, write_toy_model

from batchland import score
from batchland.predictions.layout import manifest_path


class Killing:
    """Runs of score() in processes that are killed at random moments."""

    def __init__(self, images: Path, model: Path, seed: int) -> None:
        self.images = images
        self.model = model
        self.kills = 0
        self._random = random.Random(seed)

    def until_done(self, out: Path, done, *changes: str) -> None:
        """The same command again and again, with ever more patience, until `done()`."""
        patience = 0.2
        command = [sys.executable, SLOW_SCORE, self.images, out, self.model, "0.01", *changes]
        while not done():
            patience *= 1.3
            with forks.Popen(command) as child:
                assert child.stdout.readline() == "ready\n"
                time.sleep(self._random.uniform(0, patience))
                child.kill()
                errors = child.stderr.read()
            assert child.returncode in (0, -signal.SIGKILL), errors
            self.kills += child.returncode == -signal.SIGKILL


def kill_and_resume(photos, tmp_path, model, kills, name, *changes):
    score(photos, tmp_path / "whole" / name, options(model))
    killing = Killing(photos, model, seed=kills)
    out = tmp_path / "killed" / name
    runs = 0
    while killing.kills < kills:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        killing.until_done(out, manifest_path(out).exists, *changes)
        assert output(out) == output(tmp_path / "whole" / name)
        runs += 1
    print(f"{name}: {killing.kills} kills over {runs} runs, all completed with the bytes of an undisturbed one")


def output(out: Path) -> dict[str, bytes]:
    """The output without hidden files: a run killed after the manifest may leave some for the next run to remove."""
    return contents(out) if out.is_dir() else {out.name: out.read_bytes()}


def test_killed_runs_end_as_undisturbed_ones(tmp_path, photos, toy_model):
    kill_and_resume(photos, tmp_path, toy_model, 2, "p.parquet")


@pytest.mark.slow
def test_killed_runs_that_reuse_rows_end_as_undisturbed_full_ones(tmp_path, photos, toy_model):
    """A third of the images is known under other names, a third new, and a third equal to a new one."""
    known = sorted(path for path in photos.rglob("*.jpg"))[::3]
    for number, path in enumerate(known):
        (tmp_path / "night before").mkdir(exist_ok=True)
        shutil.copyfile(path, tmp_path / "night before" / f"{number:03}.jpg")
    score(tmp_path / "night before", tmp_path / "before.parquet", options(toy_model))
    shutil.copytree(photos / "camera-1", photos / "copies")
    kill_and_resume(photos, tmp_path, toy_model, 3, "p.parquet", f"reuse={tmp_path / 'before.parquet'}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_a_hundred_kills(tmp_path, photos, toy_model, name):
    kill_and_resume(photos, tmp_path, toy_model, 100, name)


def replace_and_resume(photos, tmp_path, kills, name, change):
    """Runs that replace an output: a reader finds the old one or the new one, whole, at any moment."""
    old_model = write_toy_model(tmp_path / "old.onnx", toy_card().model_copy(update={"name": "old"}))
    new_model = write_toy_model(tmp_path / "new.onnx") if change == "overwrite" else old_model
    before = tmp_path / "before"
    score(photos, before / name, options(old_model))
    if change == "retry_failed":
        for number in range(7, 60, 10):
            data = picture(list(COLOURS.values())[number % 3])
            (photos / f"camera-{number // 20}" / f"{number:03}.jpg").write_bytes(data)
    score(photos, tmp_path / "after" / name, options(new_model))
    old, new = output(before / name), output(tmp_path / "after" / name)
    assert old != new
    killing = Killing(photos, new_model, seed=kills)
    out = tmp_path / "killed" / name
    while killing.kills < kills:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        shutil.copytree(before, tmp_path / "killed")

        def done() -> bool:
            if not out.exists():  # between two renames, where the system cannot exchange folders
                return False
            now = output(out)
            assert now in (old, new)
            return now == new and manifest_path(out).exists()

        killing.until_done(out, done, change)
    print(f"{name} {change}: {killing.kills} kills, the old or the new output whole after each")


def test_a_killed_replacement_leaves_the_old_output_or_the_new(tmp_path, photos):
    replace_and_resume(photos, tmp_path, 2, "p", "retry_failed")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["p.parquet", "p"])
@pytest.mark.parametrize("change", ["overwrite", "retry_failed"])
def test_many_killed_replacements(tmp_path, photos, name, change):
    replace_and_resume(photos, tmp_path, 25, name, change)
