"""Samples, which take seconds to draw."""

import pytest
from made_once import made_once

from batchland.demo.sample import SampleSummary, draw_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return made_once(tmp_path_factory, "sample", lambda folder: draw_sample(folder / "sample", images=110))


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    """The smallest one, and of another seed."""
    return made_once(tmp_path_factory, "small-sample", lambda folder: draw_sample(folder / "s", seed=1, images=80))
