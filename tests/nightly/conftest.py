"""Fixtures for tests of nights."""

from datetime import date
from pathlib import Path

import pytest
from job_files import JOB, deliver

NIGHT = date(2024, 11, 23)


@pytest.fixture
def project(tmp_path: Path, toy_model: Path) -> Path:
    """A folder with `toy.toml` and its delivery of NIGHT, three labelled pictures a class."""
    (tmp_path / "toy.toml").write_text(JOB)
    deliver(tmp_path, NIGHT)
    return tmp_path
