"""Where a figure comes from: the machine and the versions behind it, and where results are kept."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from batchland.cores import usable_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "onnxruntime-gpu", "torch", "torchvision", "timm", "pillow", "simplejpeg", "opencv-python-headless", "numpy",
    "pyarrow",
)  # fmt: skip


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_machine() -> str:
    return f"{usable_cores()} cores, {cpu()}; " + ", ".join(f"{name} {number}" for name, number in versions().items())
