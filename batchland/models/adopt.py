"""Adopt an ONNX classifier from elsewhere: add a card, normalisation and, where it is missing, softmax."""

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from batchland._version import __version__
from batchland.errors import ModelError, UsageError
from batchland.images.preprocess import Pixels
from batchland.models.adopt_check import (
    Alternative,
    compare_preprocessings,
    decided_by_more,
    is_guessing,
    require_no_better,
)
from batchland.models.adopt_options import AdoptOptions, OutputKind
from batchland.models.canaries import write_canaries
from batchland.models.card import METADATA_KEY, AdoptionSummary, ModelCard, class_names
from batchland.models.class_list import read_class_list, unique_labels
from batchland.models.contract import TOLERANCE, Probabilities, are_probabilities, check_new_model
from batchland.models.features import keep_features
from batchland.models.foreign import (
    ForeignInput,
    ForeignOutput,
    declared_sides,
    depends_on_sorting,
    foreign_input,
    foreign_output,
    load_foreign,
    uncomputable,
)
from batchland.models.foreign_preprocess import PRESETS, ForeignPreprocess, Sides, of_config, of_preset
from batchland.models.found_beside import Found, found_with
from batchland.models.fp16 import require_agreement, to_half_floats
from batchland.models.int8 import RANGE_PHOTOS, Limits, predictor, to_int8
from batchland.models.labelled_photos import LabelledPhotos, read_labelled
from batchland.models.nodes import branches
from batchland.models.probe_pictures import probe_pictures
from batchland.models.session import Session, open_session
from batchland.models.temperature import fit_temperature
from batchland.models.wrap import wrap
from batchland.system.files import new_file
from batchland.system.json_text import read_json
from batchland.system.regular_files import read_regular
from batchland.system.text import counted, first_line, near_miss

_log = logging.getLogger("batchland")

_TOLERANCE: Final = 1e-3
"""Largest difference of a probability between a picture alone and the same picture in a batch."""
_PICTURES: Final = 16
"""Number of generated pictures on which the outputs are examined."""
_FEW: Final = 3
_MANY: Final = 32
"""Sizes of the batches in which pictures must get the same answers as alone. 32 is the default of `score`."""
_MAX_CHECKED: Final = 200
"""Labelled photos of a check; each is computed with up to ten preprocessings."""
_MAX_DECIDING: Final = 1000
"""Labelled photos for two preprocessings between which so many do not decide."""
_MAX_CALIBRATED: Final = 5000
_USUAL_SIDE: Final = 224
"""Height and width of pictures, where a model leaves them open."""
_FEW_CALIBRATED: Final = 50
"""With fewer photos the temperature depends too much on chance; a warning says so."""
_TINY: Final = float(np.finfo(np.float32).tiny)

OnCheck = Callable[[Sequence[Alternative]], object]


def adopt(model: Path, out: Path, options: AdoptOptions | None = None, *, on_check: OnCheck | None = None) -> Session:
    """Write `model` with a card to `out`, and return it opened on the CPU.

    Labels and preprocessing are those in the options, or else those of timm's or Hugging Face's configuration beside
    the model, or of Ultralytics' metadata in it; the card says which. on_check: called with the results of the check,
    the chosen preprocessing first.

    `out` appears only if its answers are probabilities, the same for a picture alone and in a batch; its canaries are
    written beside it. Raises ModelError if the model cannot be adopted or another preprocessing is clearly better;
    UsageError if it has a card already, or another file or option does not suit it; OutputError if `out` cannot be
    written.
    """
    options = options or AdoptOptions()
    inputs = [Path(given) for given in (model, options.classes, options.preprocess) if given]
    check_new_model(out, inputs)
    adoption = _Adoption(Path(model), load_foreign(model), options)
    adoption.require_suitable()
    results = adoption.check()
    if results and on_check:
        on_check(results)
    if results:
        require_no_better(adoption.path, results)
    fitted = adoption.temperature()
    card = adoption.card(results, fitted)
    temperature = fitted and fitted[0]
    with new_file(out) as temporary:
        onnx.save(adoption.wrapped(card, temperature=temperature), temporary)
        session = open_session(temporary, "cpu")
        _check_batches(adoption.path, session)
        if options.precision == "fp16":
            adoption.write_half(temporary, card, temperature, session)
        elif options.precision == "int8":
            adoption.write_int8(temporary, card)
        keep_features(temporary)
    session = open_session(out, "cpu")
    write_canaries(session)
    return session


@dataclass(frozen=True)
class _Adoption:
    """A foreign model, and the facts found about it."""

    path: Path
    foreign: onnx.ModelProto
    options: AdoptOptions

    @cached_property
    def found(self) -> Found:
        return found_with(self.path, self.foreign)

    @cached_property
    def labels(self) -> tuple[list[str], str]:
        """The labels, and where they were read."""
        if self.options.classes is not None:
            return read_class_list(self.options.classes), self.options.classes.name
        if self.found.labels is None:
            if problem := self.found.labels_problem:
                raise UsageError(problem, advice="classes_instead")
            raise UsageError(
                f"{self.path}: there are no labels in the model, nor in config.json beside it", advice="classes"
            )
        if all(re.fullmatch(r"LABEL_\d+", label) for label in self.found.labels):
            _log.warning(
                "%s: the labels in %s are only numbers (LABEL_0, ...); give a file with their names",
                self.path, self.found.labels_from,
            )  # fmt: skip
        return unique_labels(self.path, self.found.labels), self.found.labels_from

    @cached_property
    def chosen(self) -> tuple[ForeignPreprocess, str]:
        """The preprocessing, and where it was read."""
        given = self.options.preprocess
        if given is None:
            if self.found.problem is not None:
                raise self.found.problem
            if self.found.preprocess is None:
                raise UsageError(
                    f"{self.path}: there is no preprocessing in the model, nor in a configuration beside it",
                    advice="preprocess",
                )
            spec, where = self.found.preprocess, self.found.preprocess_from
        elif given in PRESETS:
            spec, where = of_preset(given, *self._sides_of_preset()), f"the option {given}"
        else:
            spec, where = _read_preprocess(given, self._declared_or_found_sides()), Path(given).name
        for side in ("height", "width"):
            wanted = getattr(foreign_input(self.path, self.foreign, spec.layout), side)
            if wanted not in (None, getattr(spec, side)):
                raise UsageError(
                    f"{given or self.path}: {side} is {getattr(spec, side)}, but the model takes {wanted} ({where})"
                )
        return spec, where

    def _declared_or_found_sides(self) -> Sides:
        height, width = declared_sides(self.foreign)
        if height is None and width is None and (own := self.found.preprocess) is not None:
            return own.height, own.width
        return height, width

    def _sides_of_preset(self) -> tuple[int, int]:
        height, width = self._declared_or_found_sides()
        if height is None or width is None:
            height, width = height or width or _USUAL_SIDE, width or height or _USUAL_SIDE
            _log.warning(
                "%s: leaves the size of its pictures open; taken as %d x %d. If it was trained on others, give height "
                "and width in a JSON file of the preprocessing",
                self.path, height, width,
            )  # fmt: skip
        return height, width

    @property
    def preprocess(self) -> ForeignPreprocess:
        return self.chosen[0]

    @cached_property
    def source(self) -> ForeignInput:
        return foreign_input(self.path, self.foreign, self.preprocess.layout)

    @cached_property
    def target(self) -> ForeignOutput:
        return foreign_output(self.path, self.foreign, len(self.labels[0]), self.options.output_name)

    @cached_property
    def kind(self) -> Literal["logits", "probabilities"]:
        """Whether the model gives logits or probabilities."""
        raw = self.wrapped(self._plain_card(self.preprocess), softmax=False)
        rows = _raw_outputs(self.path, raw, self.source, self.preprocess.shape)
        self._require_classes(rows.shape[1])
        return _output_kind(self.path, rows, self.options.output)

    def require_suitable(self) -> None:
        """Raise ModelError or UsageError if model, labels and preprocessing contradict each other."""
        if self.options.precision == "int8" and self.options.calibrate is None:
            raise UsageError(f"{self.path}: int8 is measured on labelled photos; none are given", advice="calibrate")
        if any(entry.key == METADATA_KEY for entry in self.foreign.metadata_props):
            raise UsageError(f"{self.path}: already has a batchland card; score with it")
        foreign_input(self.path, self.foreign, self.preprocess.layout)
        if self.target.classes is not None:
            self._require_classes(self.target.classes)
        if depends_on_sorting(self.foreign, self.target.name):
            raise ModelError(
                f"{self.path}: its output {self.target.name} is sorted (TopK), so its numbers may not be those of the "
                f"classes in their order; export it without TopK, or name another output"
            )
        self._warn_of_other_statistics()
        plain = (self.preprocess.mean, self.preprocess.std) == ((0.0, 0.0, 0.0), PRESETS["byte"]["std"])
        if self.source.dtype == TensorProto.UINT8 and not plain:
            raise UsageError(
                f"{self.path}: takes uint8, so it normalises pixels itself; preprocess must be byte",
                advice="preprocess_byte",
            )

    def _require_classes(self, count: int) -> None:
        """Raise ModelError if a model that gives `count` numbers per picture does not match the labels."""
        labels, where = self.labels
        if count == 1:
            raise ModelError(
                f"{self.path}: gives one number per picture, and a softmax over one class is always 100%; export it "
                f"with two classes, for a sigmoid with the outputs 1 - p and p"
            )
        if count != len(labels):
            hint = "; if the first is that of the background, as in TensorFlow, give it a label, too"
            raise ModelError(
                f"{self.path}: gives {count} numbers per picture, but {self.options.classes or where} has "
                + counted(len(labels), "label")
                + (hint if count == len(labels) + 1 else "; check that they belong together")
            )

    def _warn_of_other_statistics(self) -> None:
        """If the user named a preprocessing that contradicts the one that comes with the model."""
        own, given = self.found.preprocess, self.preprocess
        if self.options.preprocess is None or own is None:
            return
        same = np.allclose([own.mean, own.std], [given.mean, given.std], rtol=1e-2, atol=1e-3)
        if not same or own.channels != given.channels:
            says, named = (
                f"mean {_numbers(each.mean)}, std {_numbers(each.std)}, {each.channels}" for each in (own, given)
            )
            _log.warning("%s: %s says %s; taken as named: %s", self.path, self.found.preprocess_from, says, named)

    def wrapped(
        self,
        card: ModelCard,
        *,
        foreign: onnx.ModelProto | None = None,
        preprocess: ForeignPreprocess | None = None,
        softmax: bool | None = None,
        temperature: float | None = None,
    ) -> onnx.ModelProto:
        """The model that takes pixels. foreign: the same in another precision. softmax: by default, where missing.

        Raises ModelError.
        """
        source, target, spec = self.source, self.target, preprocess or self.preprocess
        if foreign is not None:
            source = foreign_input(self.path, foreign, self.source.layout)
            target = foreign_output(self.path, foreign, len(self.labels[0]), self.target.name)
        behind = self.kind == "logits" if softmax is None else softmax
        try:
            return wrap(
                foreign or self.foreign, source, target, card, preprocess=spec, softmax=behind, temperature=temperature
            )
        except onnx.checker.ValidationError as error:
            raise ModelError(
                f"{self.path}: cannot be joined with normalisation and softmax ({first_line(error)})"
            ) from error

    def check(self) -> list[Alternative]:
        """The result of each plausible preprocessing; empty without a folder of labelled photos."""
        if self.options.check is None:
            return []
        photos = self._photos(self.options.check, _MAX_CHECKED)

        def network(preprocess: ForeignPreprocess) -> Callable[[Pixels], Probabilities]:
            return predictor(self.wrapped(self._plain_card(preprocess), preprocess=preprocess))

        takes_bytes = self.source.dtype == TensorProto.UINT8
        results = compare_preprocessings(network, self.preprocess, photos, normalises_itself=takes_bytes)
        more = partial(self._photos, self.options.check, _MAX_DECIDING)
        results = decided_by_more(network, results, more)
        self._warn_of_guessing(results[0].right)
        return results

    def temperature(self) -> tuple[float, int] | None:
        """The temperature and the number of photos that it was fitted on; None without such photos."""
        if self.options.calibrate is None:
            return None
        photos = self._photos(self.options.calibrate, _MAX_CALIBRATED)
        if len(photos.labels) < _FEW_CALIBRATED:
            few = counted(len(photos.labels), "photo")
            verb = "is" if len(photos.labels) == 1 else "are"
            _log.warning(
                "%s: %s %s too few to fit a temperature; give %d or more",
                self.options.calibrate, few, verb, _FEW_CALIBRATED,
            )  # fmt: skip
        scores = photos.scores(predictor(self.wrapped(self._plain_card(self.preprocess), softmax=False)))
        self._warn_of_guessing(scores.argmax(axis=1) == photos.labels)
        logits = scores if self.kind == "logits" else np.log(np.maximum(scores, _TINY))
        return fit_temperature(logits, photos.labels), len(photos.labels)

    def _warn_of_guessing(self, right: npt.NDArray[np.bool_]) -> None:
        """Warn if the model seems to guess. right: for each labelled photo."""
        if is_guessing(right, len(self.labels[0])):
            _log.warning(
                "%s: %d of %s are right, which is not clearly better than guessing; do the labels have the order of "
                "the model's outputs?",
                self.path, right.sum(), counted(len(right), "labelled photo"),
            )  # fmt: skip

    def card(self, results: Sequence[Alternative], fitted: tuple[float, int] | None) -> ModelCard:
        """The card, with all that was found and assumed."""
        spec, where = self.chosen
        adoption = AdoptionSummary(
            source=self.path.name,
            source_sha256=hashlib.sha256(read_regular(self.path)).hexdigest(),
            classes_from=self.labels[1],
            preprocess_from=where,
            mean=spec.mean,
            std=spec.std,
            channels=spec.channels,
            layout=self.source.layout,
            input_type=self.source.type_name,
            output_name=self.target.name,
            softmax="added" if self.kind == "logits" else "found",
            temperature=fitted and fitted[0],
            calibration_images=fitted[1] if fitted else 0,
            checked_accuracy=results[0].accuracy if results else None,
            checked_images=len(results[0].right) if results else 0,
            precision=self.options.precision,
        )
        return self._plain_card(spec).model_copy(update={"adoption": adoption})

    def write_half(self, out: Path, card: ModelCard, temperature: float | None, full: Session) -> None:
        """Replace `out` by the model in half floats. Raises ModelError if it disagrees with `full`."""
        half = to_half_floats(self.foreign)
        try:
            onnx.save(self.wrapped(card, foreign=half, temperature=temperature), out)
        except ModelError as error:
            with_branch = next((node.op_type for node in self.foreign.graph.node if any(branches(node))), None)
            what = f"a network with branches ({with_branch})" if with_branch else "it"
            message = f"{self.path}: onnxruntime's converter cannot change {what} to half floats"
            raise ModelError(message, advice="fp32") from error
        require_agreement(self.path, open_session(out, "cpu"), full)

    def write_int8(self, out: Path, card: ModelCard) -> None:
        """Replace `out` by the model in int8. Raises ModelError if that is slower or differs too much."""
        assert self.options.calibrate is not None
        photos = self._photos(self.options.calibrate, _MAX_CALIBRATED)
        limits = Limits(self.options.max_drop, self.options.allow_slower)
        quantised, summary = to_int8(self.path, onnx.load(out), photos, [photos.sample(RANGE_PHOTOS)], limits)
        onnx.helper.set_model_props(quantised, {METADATA_KEY: card.model_copy(update={"int8": summary}).to_json()})
        onnx.save(quantised, out)

    def _photos(self, folder: Path, most: int) -> LabelledPhotos:
        return read_labelled(folder, class_names(self.labels[0]), self.preprocess.spec(), most)

    def _plain_card(self, preprocess: ForeignPreprocess) -> ModelCard:
        return ModelCard(
            name=self.options.name or self.path.stem,
            architecture=self.foreign.graph.name or "unknown",
            classes=class_names(self.labels[0]),
            preprocess=preprocess.spec(),
            created_at=datetime.now(UTC).isoformat("T", "seconds"),
            versions={"batchland": __version__, "onnx": onnx.__version__},
        )


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _read_preprocess(given: str, sides: Sides) -> ForeignPreprocess:
    path = Path(given)
    if not path.exists():
        near = near_miss(given, PRESETS)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(PRESETS)}, or a JSON file"
        raise UsageError(f"preprocess {given!r}: neither a known name nor a file ({hint})")
    found = of_config(given, read_json(path), sides)
    if found is None:
        raise UsageError(f"{path}: describes no preprocessing; give height, width, fit, mean and std")
    return found[0]


def _output_kind(path: Path, rows: Probabilities, requested: OutputKind) -> Literal["logits", "probabilities"]:
    """Whether the model gives logits or probabilities, judged by its outputs for generated pictures, without a softmax.

    rows: float32 [pictures, classes]. Raises ModelError if it gives neither, UsageError if that is not what was
    requested.
    """
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(axis=1)
    if (rows == rows[0]).all():
        raise ModelError(
            f"{path}: gives every picture the same numbers when it is computed alone; check how it was trained and "
            f"exported (its weights may be zero, or an operator may work across the batch)"
        )
    if are_probabilities(rows).all():
        if requested == "logits":
            raise UsageError(f"{path}: gives probabilities, not logits", advice="output_probabilities")
        return "probabilities"
    if requested == "probabilities":
        raise ModelError(
            f"{path}: its outputs ({low:.3g} to {high:.3g}) are not probabilities that sum to 1", advice="output_auto"
        )
    if requested == "auto":
        looks_like = None
        if low >= -TOLERANCE and np.allclose(np.exp(-rows).sum(axis=1), 1, atol=TOLERANCE):
            looks_like = "may be negative logarithms of probabilities (smallest for the likeliest class)"
        elif low >= 0 and high <= 1:
            looks_like = "lie between 0 and 1 but do not sum to 1, as those of sigmoids"
        elif low >= 0 and np.ptp(sums) <= 0.01 * sums.mean():
            looks_like = f"sum to {sums.mean():.4g}, as percentages sum to 100"
        if looks_like:
            raise ModelError(
                f"{path}: its outputs {looks_like}; export it with logits or with probabilities of exclusive classes"
            )
    return "logits"


def _raw_outputs(path: Path, raw: onnx.ModelProto, source: ForeignInput, shape: tuple[int, int, int]) -> Probabilities:
    """Outputs for generated pictures, one picture at a time, float32 [pictures, classes]."""
    pictures = probe_pictures(shape, _PICTURES)
    try:
        predict = predictor(raw)
        outputs = [predict(picture[None]) for picture in pictures]
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        likely = None
        if source.batch not in (None, 1):
            likely = f"takes batches of {source.batch} pictures only; export it with a dynamic batch dimension"
        elif None in (source.height, source.width):
            likely = (
                f"cannot compute a picture of {shape[0]} x {shape[1]} pixels ({first_line(error)}); if it takes "
                f"another size, give its height and width in a JSON file of the preprocessing"
            )
        raise uncomputable(path, raw, error, likely) from error
    rows: Probabilities = np.concatenate(outputs)
    if len(rows) != len(pictures):
        raise ModelError(
            f"{path}: gives an output of shape {list(outputs[0].shape)} for one picture; the first axis must be that "
            f"of the pictures"
        )
    if not np.isfinite(rows).all():
        raise ModelError(f"{path}: gives numbers that are not finite; check its preprocessing")
    return rows


def _check_batches(model: Path, session: Session) -> None:
    """Raise ModelError unless pictures get the same answers one by one and in batches."""
    pictures = probe_pictures(session.card.preprocess.shape, _FEW)
    pictures = np.concatenate([pictures, pictures[1:2] // 8])  # the last is dark
    single = np.concatenate([session.predict(picture[None]) for picture in pictures])
    for size in (_FEW, _MANY):
        chosen = np.minimum(np.arange(size), _FEW)  # the larger batch is dark, unlike the smaller one
        try:
            batch = session.predict(pictures[chosen])
        except ModelError as error:
            raise ModelError(
                f"{model}: computes a picture alone, but not a batch of {size}; export it with a dynamic batch "
                f"dimension"
            ) from error
        _require_equal(model, batch, single[chosen])


def _require_equal(model: Path, batch: Probabilities, single: Probabilities) -> None:
    if not np.isfinite(single).all():
        raise ModelError(f"{model}: gives numbers that are not finite for some pictures, such as 0 divided by 0")
    if not np.abs(batch - single).max() <= _TOLERANCE:
        raise ModelError(
            f"{model}: gives a picture other numbers in a batch than alone, so its answers depend on the other "
            f"pictures; export it with a dynamic batch, in eval mode, without operators across the batch"
        )
