"""A night against the nights of a reference."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from observed import observed
from scipy.stats import norm, rankdata

from batchland.monitoring.findings import by_strength, describe
from batchland.monitoring.observations import ANSWER, MEASURES, Observations
from batchland.monitoring.orientation import CHANGES
from batchland.monitoring.reference import Reference
from batchland.monitoring.rules import Found
from batchland.monitoring.schema import Finding
from batchland.monitoring.statistics import Pool, Statistic

LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of([observed(np.random.default_rng(seed)) for seed in range(14)])


def strongest(reference: Reference, night: Observations) -> float:
    return describe(reference, night, LABELS)[1]


def test_normal_scores_are_those_of_mid_ranks() -> None:
    """The usual definition, with scipy's ranks."""
    images = observed(np.random.default_rng(0))
    images.values[:50, 0] = 1.0  # ties
    expected = norm.ppf((rankdata(images.values[:, 0]) - 0.5) / len(images))
    assert Pool.of(images)[0].scores(images)[:, 0] == pytest.approx(np.clip(expected, -3, 3))


def test_rest_is_the_residual_of_a_regression_on_the_other_measures() -> None:
    """Up to scale, the residual of a least-squares regression on all other measures."""
    pool, _ = Pool.of(images := observed(np.random.default_rng(0), 2000))
    scores = pool.scores(images)
    normal, rest = scores[:, : len(MEASURES)], scores[:, len(MEASURES) : -1]
    others = np.column_stack([np.delete(normal, 3, axis=1), np.ones(len(images))])
    residual = normal[:, 3] - others @ np.linalg.lstsq(others, normal[:, 3], rcond=None)[0]
    assert np.corrcoef(residual, rest[:, 3])[0, 1] > 0.999


def test_clean_nights_stay_below_their_limits(reference: Reference) -> None:
    strengths = [strongest(reference, observed(np.random.default_rng(seed))) for seed in range(100, 160)]
    assert max(strengths) < 0.9


@pytest.mark.parametrize(
    ("share", "shift", "text"),
    [
        (1.0, 3.0, "sharpness: mean "),
        (0.5, 4.0, "sharpness: mean "),
        (0.2, 6.0, "sharpness: very low in 20.0% of the pictures, usually in 0.0% to "),
    ],
)
def test_shift_of_some_images_is_found_and_named(reference: Reference, share: float, shift: float, text: str) -> None:
    night = observed(np.random.default_rng(100), shift={"sharpness": -shift}, share=share)
    found, strength = describe(reference, night, LABELS)
    assert strength > 1
    finding, rows = next(each for each in found if each[0].what == "sharpness")
    assert finding.kind == "pictures"
    assert finding.message.startswith(text)
    assert set(rows[:6]) <= set(range(round(100 * share)))


def test_a_changed_relation_of_two_measures_is_found(reference: Reference) -> None:
    """Their means stay, but they are exchanged between images."""
    night = observed(np.random.default_rng(100))
    values = night.values.copy()
    values[:, MEASURES.index("noise")] = np.random.default_rng(1).permutation(values[:, MEASURES.index("noise")] * 2.5)
    spoiled = Observations(values, night.classes, night.hashes, night.thumbnails, night.names)
    assert strongest(reference, spoiled) > 1


def test_class_mix(reference: Reference) -> None:
    night = observed(np.random.default_rng(100))
    night.classes[:] = 2
    (finding, rows), *_ = describe(reference, night, LABELS)[0]
    assert (finding.kind, finding.what) == ("classes", "blue")
    assert finding.message.startswith("100.0% of the images are 'blue', usually ")
    assert len(rows) == 100


def test_a_night_of_a_class_that_is_seldom_recognised(reference: Reference) -> None:
    """No share alone is far from usual, but all of them together are."""
    classes = np.repeat([0, 1, 2], [60, 30, 70]).astype(np.int32)
    night = replace(observed(np.random.default_rng(100), 160), classes=classes)
    strengths = reference.strengths(reference.deviations(reference.pool.figures(night)))
    found = {each.kind: strengths[index] for index, each in enumerate(reference.pool.statistics)}
    assert found["shares"] > 1 > max(strength for kind, strength in found.items() if kind in ("share", "mix", "top"))


def test_one_class_instead_of_three_is_found_although_the_classes_of_good_nights_vary_much() -> None:
    rng = np.random.default_rng(0)

    def night(shares: npt.NDArray[np.float64]) -> Observations:
        return replace(observed(rng, 150), classes=rng.choice(3, 150, p=shares).astype(np.int32))

    varied = Reference.of([night(rng.dirichlet([5, 5, 5])) for _ in range(14)])
    assert max(strongest(varied, night(rng.dirichlet([5, 5, 5]))) for _ in range(20)) < 0.8
    assert min(strongest(varied, night(np.array([0.1, 0.85, 0.05]))) for _ in range(5)) > 1


@pytest.mark.parametrize(("images", "pictures"), [(100, "the pictures"), (70, "about 70% of the pictures")])
@pytest.mark.parametrize("change", CHANGES)
def test_turned_pictures_and_swapped_channels_are_named(
    reference: Reference, change: str, images: int, pictures: str
) -> None:
    night = observed(np.random.default_rng(100))
    turned = night.thumbnails.copy()
    turned[:images] = CHANGES[change](turned[:images])
    spoiled = Observations(night.values, night.classes, night.hashes, turned, night.names)
    (finding, _), *_ = describe(reference, spoiled, LABELS)[0]
    assert finding.message == f"{pictures} look as if they were changed: {finding.what}"
    # A picture that is lighter above and alike left and right looks the same after both turns.
    alike = {"upside down": "flipped top to bottom", "a quarter turn left": "a quarter turn right"}
    assert finding.what in {change, *(other for pair in alike.items() if change in pair for other in pair)}


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("turned", [False, True])
def test_dark_pictures_are_not_called_turned_unless_they_are(reference: Reference, turned: bool, share: float) -> None:
    night = observed(np.random.default_rng(100), shift={"brightness": -6.0, "contrast": -3.0}, share=share)
    cells = night.thumbnails.copy()
    cells[: round(100 * share)] //= 4
    dark = replace(night, thumbnails=cells[:, ::-1, ::-1].copy() if turned else cells)
    assert reference.changes(dark).max() > 1  # little contrast looks like a turn
    found = [finding for finding, _ in describe(reference, dark, LABELS)[0]]
    assert [each.kind for each in found if each.kind == "change"] == ["change"] * turned
    assert "brightness" in [each.what for each in found]


def test_known_measures_come_first_and_each_group_strongest_first(reference: Reference) -> None:
    night = observed(np.random.default_rng(100), shift={"sharpness": -2.0, "noise": 6.0, "sky": 9.0})
    night.classes[:] = 2
    found, strength = describe(reference, night, LABELS)
    known = ("brightness", "contrast", "saturation", "sharpness", "noise", "pixels", "aspect", "probability")
    order = [(finding.kind != "classes" and finding.what not in known, -finding.strength) for finding, _ in found]
    assert order == sorted(order)
    assert {"blue", "noise", "sharpness"} <= {finding.what for finding, _ in found}
    assert -min(strengths for _, strengths in order) == strength
    messages = [finding.message for finding, _ in found]
    assert len(set(messages)) == len(messages)


def test_only_the_strongest_of_equal_texts_stays() -> None:
    def found(message: str, strength: float) -> Found:
        return Finding(kind="classes", what="red", message=message, strength=strength), np.zeros(0, np.intp)

    kept = by_strength([found("red", 2.0), found("blue", 4.0), found("red", 3.0)])
    assert [(finding.message, finding.strength) for finding, _ in kept] == [("blue", 4.0), ("red", 3.0)]


@pytest.mark.parametrize("fault", ["inverted", "lower half black"])
def test_pictures_that_no_turn_explains_are_not_called_changed(reference: Reference, fault: str) -> None:
    night = observed(np.random.default_rng(99), shift={"noise": 3.0})
    cells = 255 - night.thumbnails if fault == "inverted" else night.thumbnails.copy()
    if fault == "lower half black":
        cells[:, 2:] = 0
    spoiled = replace(night, thumbnails=cells)
    assert reference.changes(spoiled).max() > 1
    found, _ = describe(reference, spoiled, LABELS)
    assert {each.kind for each, _ in found} == {"pictures"}


@pytest.mark.parametrize("level", [0, 128])
def test_pictures_without_structure_are_not_called_turned(reference: Reference, level: int) -> None:
    """Nor do they hide that the others are turned, whose rows are named."""
    night = observed(np.random.default_rng(100))
    flat = level + np.random.default_rng(1).integers(0, 8, night.thumbnails.shape)
    blank = Observations(night.values, night.classes, night.hashes, flat.astype(np.uint8), night.names)
    assert [finding.what for finding, _ in describe(reference, blank, LABELS)[0] if finding.kind == "change"] == []
    turned = np.ascontiguousarray(night.thumbnails[:, ::-1, ::-1])
    turned[:40] = flat[:40]
    partly = Observations(night.values, night.classes, night.hashes, turned, night.names)
    (finding, rows), *_ = describe(reference, partly, LABELS)[0]
    assert (finding.kind, sorted(rows)) == ("change", list(range(40, 100)))


def test_unusable_measures_are_not_used() -> None:
    usable = np.array([measure != "sharpness" for measure in MEASURES])
    nights = [observed(np.random.default_rng(seed)) for seed in range(6)]
    reference = Reference.of(nights, usable)
    found, strength = describe(reference, observed(np.random.default_rng(100), shift={"sharpness": 9.0}), LABELS)
    assert (found, strength < 1) == ([], True)


def test_larger_differences_between_nights_allow_larger_deviations() -> None:
    """The same night deviates less, in the ratio of the variances between nights."""
    steady = Reference.of([observed(np.random.default_rng(seed), night=0.0) for seed in range(14)])
    varied = Reference.of([observed(np.random.default_rng(seed), night=0.9) for seed in range(14)])
    night = observed(np.random.default_rng(100), shift={"brightness": 2.5}, night=0.0)
    index = steady.pool.statistics.index(Statistic("value", "brightness", "mean"))
    few, many = (float(each.deviations(each.pool.figures(night))[index]) for each in (steady, varied))
    assert few > 3 * many > 0


def test_another_mix_of_classes_is_no_change_of_colours() -> None:
    """A night of the bluer class does not look as if channels were swapped, because images are compared by class."""

    def coloured(seed: int) -> Observations:
        night = observed(np.random.default_rng(seed))
        tint = np.array([[40, 0, -40], [-25, 0, 25], [0, 0, 0]])[night.classes]
        cells = np.clip(night.thumbnails.astype(int) + tint[:, None, None], 0, 255).astype(np.uint8)
        return replace(night, thumbnails=cells)

    nights = [coloured(seed) for seed in range(14)]
    bluer = coloured(100)
    bluer = bluer.take(np.flatnonzero(bluer.classes == 1))
    without_answers = np.array([measure not in ANSWER for measure in MEASURES])
    assert Reference.of(nights).changes(bluer).max() < 1 < Reference.of(nights, without_answers).changes(bluer).max()


@pytest.mark.parametrize("images", [8, 12, 24])
def test_small_clean_nights_are_like_a_reference_of_few_photos(images: int) -> None:
    """Also where a measure is the same for most pictures. A spoiled night of this size is found."""
    rng = np.random.default_rng(images)

    def night(shift: dict[str, float] | None = None) -> Observations:
        found = observed(rng, images, shift, night=0.0)
        flat = found.values[:, MEASURES.index("flat_share")]
        flat[:] = np.where(flat > 1.5, flat, 0)
        return found

    reference = Reference.of([night() for _ in range(5)])
    assert max(strongest(reference, night()) for _ in range(15)) < 1
    assert strongest(reference, night({"sharpness": -4.0, "noise": 4.0})) > 1


def test_a_changed_night_is_named_as_that_first(reference: Reference) -> None:
    """Although a figure of the pictures deviates more."""
    night = observed(np.random.default_rng(100), shift={"noise": 9.0})
    turned = replace(night, thumbnails=np.ascontiguousarray(night.thumbnails[:, ::-1, ::-1]))
    first, *others = (finding for finding, _ in describe(reference, turned, LABELS)[0])
    assert first.kind == "change"
    assert max(each.strength for each in others) > first.strength


def test_a_stronger_brightness_is_named_before_a_change(reference: Reference) -> None:
    """A dark night was called one with swapped channels first."""
    night = observed(np.random.default_rng(100), shift={"brightness": -6.0, "noise": 9.0})
    turned = replace(night, thumbnails=np.ascontiguousarray(night.thumbnails[:, ::-1, ::-1] // 4))
    first, second, *_ = (finding for finding, _ in describe(reference, turned, LABELS)[0])
    assert (first.what, second.kind) == ("brightness", "change")
    assert first.strength > second.strength


def test_grey_pictures_are_not_called_swapped(reference: Reference) -> None:
    """Their thumbnails look the same after a swap of colours, and unlike those of the reference."""
    night = observed(np.random.default_rng(100), shift={"saturation": -6.0})
    cells = night.thumbnails.mean(axis=3, keepdims=True).astype(np.uint8).repeat(3, axis=3)
    grey = replace(night, thumbnails=cells)
    assert reference.changes(grey).max() > 1
    found = [(each.kind, each.what) for each, _ in describe(reference, grey, LABELS)[0]]
    assert found[0] == ("pictures", "saturation")
    assert "change" not in dict(found)


def test_a_value_in_its_usual_range_is_not_named_first(reference: Reference) -> None:
    """Noise is unusual only for pictures that are otherwise like these."""
    night = observed(np.random.default_rng(100), shift={"row_bands": 4.0})
    noise = night.values[:, MEASURES.index("noise")].copy()
    night.values[:, MEASURES.index("noise")] = -1.5 * (noise - noise.mean())
    found = [each for each, _ in describe(reference, night, LABELS)[0]]
    names = [each.what for each in found]
    assert "noise" in names
    assert found[names.index("noise")].message == (
        "noise, relative to the other figures of the pictures: the pictures differ more than usual (spread 2.01, "
        "usually 0.852 to 1.13)"
    )
    assert names[0] == "row_bands"


def test_copies_of_one_picture_are_not_called_changed(reference: Reference) -> None:
    night = observed(np.random.default_rng(100))
    thumbnails = np.ascontiguousarray(night.thumbnails[:, ::-1, ::-1])
    turned = replace(night, thumbnails=thumbnails)
    for images, kinds in ((turned, ["change"]), (turned.take(np.zeros(100, np.intp)), [])):
        found = [finding.kind for finding, _ in describe(reference, images, LABELS)[0]]
        assert [kind for kind in found if kind == "change"] == kinds


def test_pictures_that_are_too_alike_are_called_that(reference: Reference) -> None:
    """Their mean is as usual, so the mean alone would explain nothing."""
    night = observed(np.random.default_rng(100))
    values = night.values.copy()
    column = MEASURES.index("saturation")
    values[:, column] = np.median(reference.pool.ordered[:, column])
    found = [each for each, _ in describe(reference, replace(night, values=values), LABELS)[0]]
    (message,) = [each.message for each in found if each.what == "saturation"]
    assert message == "saturation: the pictures are more alike than usual (spread 0.137, usually 0.935 to 1.07)"


def test_a_mean_in_its_usual_range_is_not_given_as_the_fault(reference: Reference) -> None:
    """One extreme picture hides the change of the others. Logarithms are never printed."""
    night = observed(np.random.default_rng(100), shift={"sharpness": -3.0, "pixels": 9.0})
    night.values[0, MEASURES.index("sharpness")] += 300
    messages = {finding.what: finding.message for finding, _ in describe(reference, night, LABELS)[0]}
    assert messages["sharpness"].startswith("sharpness, by rank among usual pictures: mean -2.")
    assert messages["pixels"] == "number of pixels: mean 496, usually 0.854 to 1.31"
