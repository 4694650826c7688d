"""The benchmark of nights: what it calls found, at which limit."""

import numpy as np
from observed import observed

from benchmarks.nights.generator import CALM, World
from benchmarks.nights.simulate import SHARES, Judged, spoiled_nights


def test_found_is_what_breaks_a_rule_or_is_beyond_the_limit() -> None:
    unusual = Judged(None, 0.95, "change", {})
    assert (unusual.found(0.9), unusual.found(1.0)) == ("change", None)
    assert Judged("volume", 0.0, "", {}).found(1.0) == "volume"


def test_a_spoiled_night_is_stronger_the_more_of_it_is_spoiled() -> None:
    """Compared with nights, and with labelled photos."""
    rng = np.random.default_rng(0)
    images = observed(rng, 400)
    world = World(images, np.zeros(400, np.intp), images.classes.astype(np.intp), images.values[:, 0].astype(float))
    faults = {"dull": observed(rng, 200, shift={"saturation": -4})}
    for labelled in (None, observed(rng, 300)):
        found = spoiled_nights(world, faults, CALM, 80, 6, (1,), labelled)
        strengths = [found["dull", share].strength for share in SHARES]
        assert strengths == sorted(strengths, reverse=True)
        assert found["dull", 1.0].found(1.0)
        assert found["yesterday again", 1.0].rule == "earlier_copies"
