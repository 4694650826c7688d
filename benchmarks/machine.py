"""The machine and the versions of a measurement, and the folder of the results."""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from batchland.system.cores import usable_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "onnxruntime-gpu", "torch", "torchvision", "timm", "pillow", "simplejpeg", "opencv-python-headless", "numpy",
    "pyarrow", "ray",
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


def timed(command: list[str]) -> dict[str, Any]:
    """Wall seconds, CPU seconds and peak resident MB (largest process) of a command."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    output, errors = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall": wall, "cpu": cpu, "peak_mb": usage.ru_maxrss / 1024, "output": output}
