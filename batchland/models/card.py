"""The model card: class names, preprocessing and provenance, stored as JSON in the ONNX file's metadata."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from batchland.errors import ModelError
from batchland.images.preprocess import PreprocessSpec
from batchland.models.decisions import AcceptThresholds, KnownPhotos, PredictionSets
from batchland.system.documents import Document
from batchland.system.json_text import parse_json

METADATA_KEY: Final = "batchland"
"""Key of the card in the ONNX file's metadata."""
SCHEMA_VERSION: Final = 1


class ClassName(Document):
    """One class: its training folder, and the label for people."""

    folder: Annotated[str, Field(min_length=1)]
    label: Annotated[str, Field(min_length=1)]


class TrainingSummary(Document):
    """How the weights were trained."""

    recipe: str
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """The epoch that the weights are from, counted from 1."""
    validation_loss: float
    """Mean cross-entropy over the validation images, nats."""
    validation_accuracy: float
    """Top-1, 0 to 1."""
    seed: int
    settings: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    """All other training options: optimiser, learning rate, augmentation, weights."""


class DataSummary(Document):
    """Size and fingerprint of the training data."""

    fingerprint: str
    """sha256 over the names and contents of the images."""
    training_images: int
    validation_images: int


class ExportSummary(Document):
    """Comparison of the file with the trained model, over all validation images."""

    precision: Literal["fp32", "fp16", "int8"]
    """Precision of the network's weights and products. The input is always uint8, the output float32."""
    temperature: float
    """Divides the logits before softmax; fitted on the validation images."""
    validation_images: int
    validation_accuracy: float
    """The file's top-1, 0 to 1."""
    validation_loss: float
    """The file's mean cross-entropy, nats, with the temperature."""
    accuracy_fp32: float
    """Top-1 of the trained model in float32, 0 to 1."""
    largest_difference: float
    """Largest difference of a probability between the file and the trained model with the same temperature."""


class AdoptionSummary(Document):
    """Where an adopted model comes from, and everything that was found or assumed about it."""

    source: str
    """Name of the foreign file."""
    source_sha256: str
    classes_from: str
    """Where the labels were read."""
    preprocess_from: str
    """Where the preprocessing was read, or the option that named it."""
    mean: tuple[float, float, float]
    """Means of red, green and blue, for pixels from 0 to 1."""
    std: tuple[float, float, float]
    channels: Literal["rgb", "bgr"]
    """Order in which the network takes them."""
    layout: Literal["NCHW", "NHWC"]
    input_type: Literal["float32", "float16", "uint8"]
    output_name: str
    softmax: Literal["added", "found"]
    temperature: float | None = None
    """Divides the logits before softmax; fitted on labelled photos. None if it was not fitted."""
    calibration_images: int = 0
    """Number of these photos."""
    checked_accuracy: float | None = None
    """Top-1 on the labelled photos of the check, 0 to 1; None if it was not checked."""
    checked_images: int = 0
    precision: Literal["fp32", "fp16", "int8"] = "fp32"


class Int8Summary(Document):
    """How a network was quantised, and its accuracy and speed on labelled photos."""

    method: Literal["minmax", "percentile", "entropy"]
    """How the ranges of activations were measured."""
    weight_bits: Literal[7, 8] = 7
    """Bits of the weights; 7 is faster on CPUs without VNNI. A card without this field means 7."""
    float_layers: tuple[str, ...]
    """Layers that stay in float32, of `layers`."""
    layers: int
    """Number of layers with weights."""
    images: int
    """Number of labelled photos."""
    agreement: float
    """Share of them with the same first class as in fp32, 0 to 1."""
    reencoded_agreement: float | None = None
    """That of fp32 with itself if pictures are re-encoded as JPEG; None if `agreement` is at least 0.99."""
    accuracy: float
    """Top-1, 0 to 1."""
    accuracy_fp32: float
    """Top-1, 0 to 1."""
    speed: float
    """How many times as fast as fp32, by CPU time."""
    measured_on: str
    """The CPU that the speed was measured on."""


class AddedClass(Document):
    """A class that was added without training, and its measured accuracy."""

    label: str
    photos: int
    """Number of photos that its prototype was made from."""
    scenes: int
    """Number of different scenes among them; near-copies count as one scene."""
    recognised: int
    """Number of the photos that are recognised by a prototype made from all other scenes."""
    labelled: int | None = None
    """Number of labelled photos of the old classes. This and the following are None if they were not measured."""
    right_before: int | None = None
    """Number of these with the right first choice without the new class."""
    right_after: int | None = None
    """Number of these with the right first choice with the new class."""
    taken: int | None = None
    """Number of these that are classified as the new class."""


class ModelCard(Document):
    """Everything that scoring needs to know about a model besides its graph."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Annotated[str, Field(min_length=1)]
    architecture: str
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)]
    """Class names in the order of the model's outputs."""
    preprocess: PreprocessSpec
    features: int | None = None
    """Length of the model's second output, the features; None if it has none."""
    features_of: str | None = None
    """sha256 of the ONNX file that this one was made from with the same features, by `batchland calibrate` or
    `batchland classes add`."""
    created_at: str
    """ISO 8601, UTC."""
    versions: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Versions of the packages that made the file, by name."""
    training: TrainingSummary | None = None
    data: DataSummary | None = None
    export: ExportSummary | None = None
    """None for models trained elsewhere."""
    adoption: AdoptionSummary | None = None
    """None for models trained here."""
    int8: Int8Summary | None = None
    """None for models that are not in int8."""
    added: tuple[AddedClass, ...] = ()
    """Classes that `batchland classes add` added; they are the last ones in `classes`, in the same order."""
    decision: AcceptThresholds | None = None
    """Which answers `score` accepts; from `batchland calibrate`."""
    prediction_sets: PredictionSets | None = None
    """Which classes `score` puts into prediction sets; from `batchland calibrate`."""
    known: KnownPhotos | None = None
    """Distances between known photos; from `batchland calibrate`."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "ModelCard":
        for kind, names in (("folder", self.folders), ("label", self.labels)):
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            if duplicates:
                raise ValueError(f"class {kind} {duplicates[0]!r} appears twice")
        return self

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Class labels in the order of the model's outputs."""
        return tuple(name.label for name in self.classes)

    @property
    def folders(self) -> tuple[str, ...]:
        """Class folders in the order of the model's outputs."""
        return tuple(name.folder for name in self.classes)

    def to_json(self) -> str:
        """The card as stored in the ONNX metadata."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str, source: str) -> "ModelCard":
        """Parse a card. Raises ModelError that names `source` and what is wrong."""
        try:
            return cls.model_validate(parse_json(text))
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] == ("schema_version",) and isinstance(first["input"], int) and first["input"] > 1:
                raise ModelError(
                    f"{source}: its card has schema_version {first['input']}, this version of batchland reads "
                    f"{SCHEMA_VERSION}; update batchland, or export the model again"
                ) from error
            where = ".".join(str(part) for part in first["loc"]) or "card"
            raise ModelError(
                f"{source}: its batchland card is damaged ({where}: {first['msg']}); export the model again"
            ) from error
        except ValueError as error:
            raise ModelError(f"{source}: its batchland card {error}; export the model again") from error


def class_names(folders: Sequence[str]) -> tuple[ClassName, ...]:
    """Classes of training folders: `09.Golden_Gate_Bridge` gets the label `Golden Gate Bridge`.

    `1.5_tonne` keeps its number. Folders that would get the same label, or another folder's name, get their own names
    as labels.
    """
    labels = [re.sub(r"^\d+\.(?=\D)", "", folder).replace("_", " ").strip() or folder for folder in folders]
    counts = Counter(labels) + Counter(folders)
    return tuple(
        ClassName(folder=folder, label=label if counts[label] == 1 + (label == folder) else folder)
        for folder, label in zip(folders, labels, strict=True)
    )
