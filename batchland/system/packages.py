"""Versions of installed packages, from the names of folders: with importlib.metadata this takes 30 ms longer."""

import os
import re
import sys
from contextlib import suppress
from functools import cache
from typing import Final

_FOLDER: Final = re.compile(r"(.+?)-([^-]+)(?:-py[0-9.]+)?\.(?:dist|egg)-info")


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    return _installed().get(_normal(package))


@cache
def _installed() -> dict[str, str]:
    """Versions by name. The first folder of the import path that has a package counts."""
    found: dict[str, str] = {}
    for folder in sys.path:
        with suppress(OSError):  # a zip file, or a folder that is missing
            for package in filter(None, map(_FOLDER.fullmatch, os.listdir(folder or "."))):
                found.setdefault(_normal(package[1]), package[2])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
