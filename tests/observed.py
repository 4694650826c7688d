"""Observed nights for tests of the monitor. Measures of an image vary together, and a little from night to night."""

import numpy as np

from batchland.monitoring.observations import MEASURES, Observations

Random = np.random.Generator


def observed(
    rng: Random, count: int = 100, shift: dict[str, float] | None = None, night: float = 0.1, share: float = 1.0
) -> Observations:
    """A night of `count` images of three classes.

    shift: added to a measure of `share` of the images, in its deviations. night: deviation between nights.
    """
    columns = len(MEASURES)
    common = rng.normal(0, 1, (count, 3)) @ np.random.default_rng(0).normal(0, 0.5, (3, columns))
    values = common + rng.normal(0, 1, (count, columns)) + rng.normal(0, night, columns)
    for measure, change in (shift or {}).items():
        values[: round(count * share), MEASURES.index(measure)] += change
    for measure in ("contrast", "gradient_x", "gradient_y", "row_bands", "column_bands"):
        values[:, MEASURES.index(measure)] = np.abs(values[:, MEASURES.index(measure)]) + 1  # 0 is blank
    cells = rng.normal(0, 12, (count, 4, 4, 3)) + np.linspace(190, 70, 4)[:, None, None] + np.array([30, 0, -30])
    return Observations(
        values.astype(np.float32),
        rng.choice(3, count, p=[0.5, 0.3, 0.2]).astype(np.int32),
        rng.integers(0, 2**64, count, np.uint64),
        np.clip(cells, 0, 255).astype(np.uint8),
        np.array([f"{number:03}.jpg" for number in range(count)]),
    )
