"""Check that every dependency has a wheel for each platform and Python version that the classifiers name.

    python tools/wheels.py [--extra train]...

Resolves the dependencies with uv for each of them, wheels only, and prints a table. Exit code 1 if one has none. Needs
uv and a package index.
"""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
KNOWN = {("x86_64-apple-darwin", "3.14"): "onnxruntime has no wheels for Intel Macs after Python 3.13"}
"""What is missing and documented."""
TRAIN_KNOWN = {"x86_64-apple-darwin": "torch has no wheels for Intel Macs"}
MACOS = "14.0"
"""The oldest macOS that is asked for."""
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-apple-darwin")


def pythons() -> list[str]:
    """The versions that the classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))


def missing(python: str, platform: str, extras: list[str]) -> str | None:
    """Why the dependencies cannot be installed from wheels; None if they can."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--only-binary", ":all:",
        "--python-version", python, "--python-platform", platform, "pyproject.toml",
    ]  # fmt: skip
    for extra in extras:
        command += ["--extra", extra]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    return None if result.returncode == 0 else " ".join(result.stderr.split())


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--extra", action="append", default=[], help="of pyproject.toml; repeatable")
    parser.add_argument("--python", action="append", help="instead of all that the classifiers name")
    parser.add_argument("--platform", action="append", help="instead of all")
    given = parser.parse_args()
    failed = 0
    for platform in given.platform or PLATFORMS:
        for python in given.python or pythons():
            reason = missing(python, platform, given.extra)
            known = KNOWN.get((platform, python)) or (TRAIN_KNOWN.get(platform) if "train" in given.extra else None)
            failed += reason is not None and known is None
            found = "wheels" if reason is None else f"none: {known}" if known else f"MISSING: {reason}"
            print(f"{platform:28} {python:5} {found}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
