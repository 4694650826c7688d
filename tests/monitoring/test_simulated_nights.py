"""The benchmark of nights: what it calls found, at which limit."""

import numpy as np
from observed import observed

from batchland.images.signals import SIGNAL_DTYPE
from benchmarks.nights.accuracy import divided
from benchmarks.nights.generator import CALM, World
from benchmarks.nights.simulate import SHARES, Judged, spoiled_nights
from benchmarks.nights.tables import Pictures


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


def test_a_division_keeps_all_pictures_of_a_photo_in_one_part() -> None:
    """Photos of other subjects are never labelled."""

    def pictures(*photos: int) -> Pictures:
        numbers = np.array(photos, np.int32)
        size, answers = np.zeros((len(photos), 3), np.int64), np.zeros((len(photos), 2), np.float32)
        return Pictures(numbers, numbers, size, np.zeros(len(photos), SIGNAL_DTYPE), answers)

    tables = {"clean": pictures(*range(10)), "blur 0": pictures(*range(0, 10, 2)), "other subject": pictures(0, 1, 2)}
    labelled, others = ({kind: set(each.source) for kind, each in part.items()} for part in divided(tables, 4, 1))
    assert (len(labelled["clean"]), labelled["clean"] | others["clean"]) == (4, set(range(10)))
    for part in (labelled, others):
        assert part["blur 0"] == {photo for photo in part["clean"] if photo % 2 == 0}
    assert (labelled["other subject"], others["other subject"]) == (set(), {0, 1, 2})
