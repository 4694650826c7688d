"""Faults on the model's side, found by its canaries: `python -m benchmarks.nights.model_faults MODEL.onnx...`

Every canary goes through decoding, preprocessing and the model, one of which is at fault, and its probabilities are
compared with the stored ones. Small differences are there, too, as other decoders and devices have them.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from batchland.images.preprocess import Pixels, decode, fit
from batchland.models.canaries import read_canaries
from batchland.models.contract import Probabilities
from batchland.models.session import Session, open_session

Change = Callable[[Pixels], Pixels]


class Fault(NamedTuple):
    """What goes wrong. Each is a step from the decoded picture to the model's answer."""

    decoded: Change = lambda pixels: pixels
    """Of the decoded picture, uint8 [H, W, 3]."""
    fit: Callable[[Pixels, Session], Pixels] | None = None
    """Instead of the model's own preprocessing."""
    fitted: Change = lambda pixels: pixels
    """Of all inputs of the model, uint8 [n, height, width, 3]."""
    answers: Callable[[Probabilities], Probabilities] = lambda answers: answers
    """Of all probabilities, [n, classes]."""


def _with_filter(filtering: Image.Resampling) -> Callable[[Pixels, Session], Pixels]:
    def resized(pixels: Pixels, session: Session) -> Pixels:
        spec = session.card.preprocess
        box = (0.0, 0.0, pixels.shape[1], pixels.shape[0])
        if spec.shorter_side:
            scale = spec.shorter_side / min(pixels.shape[:2])
            wide, high = spec.width / scale / 2, spec.height / scale / 2
            x, y = pixels.shape[1] / 2, pixels.shape[0] / 2
            box = (max(x - wide, 0), max(y - high, 0), min(x + wide, box[2]), min(y + high, box[3]))
        image = Image.fromarray(np.ascontiguousarray(pixels))
        return np.asarray(image.resize((spec.width, spec.height), filtering, box=box))

    return resized


def _other_fit(pixels: Pixels, session: Session) -> Pixels:
    """Cut where the model squashes, squash where it cuts."""
    spec = session.card.preprocess
    if spec.fit == "crop":
        other = spec.model_copy(update={"fit": "squash", "shorter_side": None})
    else:
        other = spec.model_copy(update={"fit": "crop", "shorter_side": max(spec.height, spec.width)})
    return fit(pixels, other)


def _values(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda pixels: np.clip(np.rint(change(pixels.astype(np.float64))), 0, 255).astype(np.uint8)


def _encoded_again(pixels: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=95)
    return np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))


_MEAN: Final = np.array([0.485, 0.456, 0.406]) * 255
_DEVIATION: Final = np.array([0.229, 0.224, 0.225]) * 4

FAULTS: Final[dict[str, Fault]] = {
    "channels swapped": Fault(decoded=lambda pixels: pixels[..., ::-1]),
    "grey": Fault(decoded=lambda pixels: np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)),
    "upside down": Fault(decoded=lambda pixels: pixels[::-1, ::-1]),
    "rows and columns exchanged": Fault(decoded=lambda pixels: pixels.transpose(1, 0, 2)),
    "half of the rows missing": Fault(
        decoded=lambda pixels: np.concatenate(
            [pixels[: len(pixels) // 2], np.full_like(pixels[len(pixels) // 2 :], 128)]
        )
    ),
    "full-range YCbCr taken for studio range": Fault(decoded=_values(lambda values: (values - 16) * 255 / 219)),
    "linear light": Fault(decoded=_values(lambda values: 255 * (values / 255) ** 2.2)),
    "0 to 1 instead of 0 to 255": Fault(fitted=lambda pixels: pixels // 128),
    "normalised twice": Fault(fitted=_values(lambda values: (values - _MEAN) / _DEVIATION)),
    "not normalised": Fault(fitted=_values(lambda values: values * _DEVIATION / 4 + _MEAN)),
    "nearest neighbour": Fault(fit=_with_filter(Image.Resampling.NEAREST)),
    "cut for squashed, or squashed for cut": Fault(fit=_other_fit),
    "neighbour's answers": Fault(answers=lambda answers: np.roll(answers, 1, axis=0)),
    "classes shifted": Fault(answers=lambda answers: np.roll(answers, 1, axis=1)),
    "all batches the first": Fault(answers=lambda answers: np.resize(answers[:4], answers.shape)),
}
"""Each must be found."""
HARMLESS: Final[dict[str, Fault]] = {
    "nothing": Fault(),
    "answers in half precision": Fault(answers=lambda answers: answers.astype(np.float16).astype(np.float32)),
    "one level brighter": Fault(fitted=lambda pixels: np.minimum(pixels, 254) + np.uint8(1)),
    "levels off by chance, at most one": Fault(
        fitted=_values(lambda values: values + np.random.default_rng(1).integers(-1, 2, values.shape))
    ),
    "encoded again at quality 95": Fault(decoded=_encoded_again),
}
"""What other decoders and devices may differ by. What is found here would end a night after such a change."""


def largest_difference(session: Session, fault: Fault) -> float:
    """Of a probability of a canary, to the stored one."""
    canaries = read_canaries(session.path)
    assert canaries is not None
    spec = session.card.preprocess
    fitted = []
    for data in canaries.files.values():
        pixels = fault.decoded(decode(data, spec).pixels)
        fitted.append(fault.fit(pixels, session) if fault.fit else fit(np.ascontiguousarray(pixels), spec))
    inputs = fault.fitted(np.stack(fitted))
    answers = fault.answers(
        np.concatenate([session.predict(inputs[first : first + 1]) for first in range(len(inputs))])
    )
    return float(np.abs(answers - canaries.probabilities).max())


def main() -> None:
    """Print a table of the largest differences, for each model and fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files with canaries beside them")
    for model in parser.parse_args().models:
        session = open_session(model)
        canaries = read_canaries(model)
        if canaries is None:
            parser.error(f"{model}: has no canaries beside it")
        print(f"\n## {model.stem}: tolerance {canaries.info.tolerance:.3f}\n\n| fault | largest difference | found |")
        print("| --- | --- | --- |")
        for name, fault in (FAULTS | HARMLESS).items():
            difference = largest_difference(session, fault)
            print(f"| {name} | {difference:.3f} | {'yes' if difference > canaries.info.tolerance else 'no'} |")


if __name__ == "__main__":
    main()
