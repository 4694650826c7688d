"""docs/scale.md: its figures equal the output of its script."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def plan(*arguments):
    command = [sys.executable, "-m", "benchmarks.billion", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def test_the_plan_is_what_the_script_computes():
    assert plan() in (ROOT / "docs" / "scale.md").read_text()


def test_other_figures_make_another_plan():
    """Ten million images of 200 kB on four GPUs of 2,500 images/s, against arithmetic by hand."""
    lines = plan("--images", "1e7", "--kilobytes", "200", "--gpus", "4", "--gpu-images-per-second", "2500").splitlines()
    assert "| GPU hours | images / gpu_images_per_second / 3600 | 1 |" in lines
    assert "| hours on 4 GPUs | the same / gpus | 0.3 |" in lines
    assert "| Gbit/s into one GPU's machine | gpu_images_per_second x kilobytes | 4.0 |" in lines
    assert "| objects, each shard lists all | 40,000 | 20,000,000 | 8.20 | 0.3 | 0.6 |" in lines
    assert "| objects, planned once | 10,000 | 20,000,000 | 8.05 | 0.3 | 0.6 |" in lines
    assert "| tar files, planned once | 1 | 502,000 | 0.20 | 0.0 | 0.6 |" in lines
    assert "| images, TB read | images x kilobytes | 2 |" in lines
