"""Compare the chosen preprocessing of a foreign model with other plausible ones, on labelled photos."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from batchland.errors import ModelError
from batchland.images.preprocess import Pixels
from batchland.models.contract import Probabilities
from batchland.models.foreign_preprocess import PRESETS, ForeignPreprocess
from batchland.models.labelled_photos import LabelledPhotos
from batchland.system.text import aligned, first_few, p_value, percent

_SIGNIFICANCE: Final = 0.01
_ENOUGH: Final = 20
"""Photos, to say that a model guesses."""
_CROP: Final = 224 / 256

Network = Callable[[ForeignPreprocess], Callable[[Pixels], Probabilities]]
"""Gives the function from pixels to scores [batch, classes] under a preprocessing."""


@dataclass(frozen=True, eq=False)
class Alternative:
    """One preprocessing and its result."""

    name: str
    preprocess: ForeignPreprocess
    right: npt.NDArray[np.bool_]
    """For each photo."""

    @property
    def accuracy(self) -> float:
        """Top-1, 0 to 1."""
        return float(self.right.mean())


def compare_preprocessings(
    network: Network, chosen: ForeignPreprocess, photos: LabelledPhotos, *, normalises_itself: bool
) -> list[Alternative]:
    """The chosen preprocessing first, then the others, best first. normalises_itself: the model takes bytes."""
    plausible = _plausible(chosen, normalises_itself=normalises_itself)
    results = [_measured(network, name, preprocess, photos) for name, preprocess in plausible]
    return [results[0], *sorted(results[1:], key=lambda each: -each.accuracy)]


def decided_by_more(
    network: Network, results: Sequence[Alternative], more: Callable[[], LabelledPhotos]
) -> list[Alternative]:
    """The results; if the best rival is ahead of the chosen one within chance, both are measured on more photos."""
    chosen, rival = results[0], _rival(results)
    if rival is None or rival.accuracy <= chosen.accuracy or _loses(chosen, rival):
        return list(results)
    photos = more()
    if len(photos.labels) <= len(chosen.right):
        return list(results)
    again = (chosen, rival)
    return [_measured(network, each.name, each.preprocess, photos) if each in again else each for each in results]


def _measured(network: Network, name: str, preprocess: ForeignPreprocess, photos: LabelledPhotos) -> Alternative:
    viewed = LabelledPhotos(photos.folder, photos.refs, photos.labels, preprocess.spec())
    return Alternative(name, preprocess, viewed.scores(network(preprocess)).argmax(1) == photos.labels)


def _rival(results: Sequence[Alternative]) -> Alternative | None:
    """The best of the others with the same fit, on the same number of photos."""
    chosen = results[0]
    others = [
        each
        for each in results[1:]
        if each.preprocess.fit == chosen.preprocess.fit and len(each.right) == len(chosen.right)
    ]
    return max(others, key=lambda each: each.accuracy, default=None)


def _loses(chosen: Alternative, rival: Alternative) -> bool:
    """Whether the chosen one is worse by more than chance."""
    return rival.accuracy > chosen.accuracy and _mcnemar(chosen, rival) < _SIGNIFICANCE


def _mcnemar(one: Alternative, other: Alternative) -> float:
    """Exact p-value of McNemar's test; the two must differ."""
    won, lost = int((other.right & ~one.right).sum()), int((one.right & ~other.right).sum())
    return float(binomtest(won, won + lost).pvalue)


def require_no_better(path: Path, results: Sequence[Alternative]) -> None:
    """Raise ModelError if other statistics or channels are clearly better than the first: McNemar's exact p < 0.01.

    Another fit may be better without being the right one: the part that a crop leaves out matters more in some photos.
    """
    chosen, best = results[0], _rival(results)
    if best is None or not _loses(chosen, best):
        return
    raise ModelError(
        f"{path}: the preprocessing is wrong: {percent(chosen.accuracy)} of {len(chosen.right)} labelled photos are "
        f"right with it, {percent(best.accuracy)} with {best.name}",
        advice="preprocess_better",
    )


def is_guessing(right: npt.NDArray[np.bool_], classes: int) -> bool:
    """Whether the answers to enough photos are not clearly better than random ones."""
    chance = binomtest(int(right.sum()), len(right), 1 / classes, alternative="greater").pvalue
    return len(right) >= _ENOUGH and bool(chance >= _SIGNIFICANCE)


def undecided(results: Sequence[Alternative]) -> str:
    """A sentence about preprocessings that are better than the chosen one but do not refute it, or nothing."""
    chosen, rival = results[0], _rival(results)
    comparable = [each for each in results[1:] if len(each.right) == len(chosen.right)]
    sentences = []
    if rival is not None and rival.accuracy > chosen.accuracy and not _loses(chosen, rival):
        sentences.append(
            f"{rival.name} is better, but within chance ({p_value(_mcnemar(chosen, rival))}): check on more photos"
        )
    elif rival is not None and rival.accuracy == chosen.accuracy:
        fit = chosen.preprocess.fit
        equal = [each.name for each in comparable if each.preprocess.fit == fit and each.accuracy == chosen.accuracy]
        verb = "is" if len(equal) == 1 else "are"
        sentences.append(f"{first_few(equal)} {verb} as good: these photos do not tell which one is right")
    other_fit = max(
        (each for each in comparable if each.preprocess.fit != chosen.preprocess.fit),
        key=lambda each: each.accuracy,
        default=None,
    )
    if other_fit is not None and _loses(chosen, other_fit):
        sentences.append(
            f"{other_fit.name} is better ({p_value(_mcnemar(chosen, other_fit))}); the check does not decide about "
            f"the fit"
        )
    return "".join(f"note: {sentence}\n" for sentence in sentences)


def comparison_table(results: Sequence[Alternative]) -> str:
    """Text for a terminal: a line per preprocessing. Ends with a newline."""
    least = min(len(each.right) for each in results)
    named = ((each, f", {len(each.right):,} photos" if len(each.right) > least else "") for each in results)
    rows = [("top-1", "preprocessing"), *((percent(each.accuracy), each.name + more) for each, more in named)]
    return "\n".join(aligned(rows, "><")) + "\n"


def _plausible(chosen: ForeignPreprocess, *, normalises_itself: bool) -> Iterator[tuple[str, ForeignPreprocess]]:
    """The chosen one; the same with the other fit and the other order of channels; and other statistics."""
    yield "as chosen", chosen
    yield from _other_fits(chosen)
    other_order = "rgb" if chosen.channels == "bgr" else "bgr"
    yield f"channels {other_order}", chosen.model_copy(update={"channels": other_order})
    if normalises_itself:
        return
    for name, preset in PRESETS.items():
        mean, std = (preset.get(key, default) for key, default in (("mean", (0.0,) * 3), ("std", (1.0,) * 3)))
        if not (np.allclose(mean, chosen.mean, atol=5e-3) and np.allclose(std, chosen.std, rtol=2e-2)):
            other = chosen.model_copy(update={"mean": mean, "std": std})
            yield f"mean and std of {name}", other
            yield from ((f"{name}, {fit}", each) for fit, each in _other_fits(other))


def _other_fits(chosen: ForeignPreprocess) -> Iterator[tuple[str, ForeignPreprocess]]:
    size = max(chosen.height, chosen.width)
    if chosen.fit == "crop":
        yield "fit squash", chosen.model_copy(update={"fit": "squash", "shorter_side": None})
    else:
        side = round(size / _CROP)
        yield "fit crop", chosen.model_copy(update={"fit": "crop", "shorter_side": side})
