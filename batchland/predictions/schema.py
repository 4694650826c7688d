"""The predictions file and its manifest: the Arrow schema and the JSON documents."""

from collections import Counter
from typing import Annotated, Any, Final, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from batchland.images.signals import SIGNALS
from batchland.models.card import ClassName, ModelCard
from batchland.system.arrow import column
from batchland.system.documents import Count, Document

METADATA_KEY: Final = b"batchland"
"""Key of the JSON document in a Parquet file's metadata."""
TOP_K_TYPE: Final = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("label", pa.string(), nullable=False),
                pa.field("class_index", pa.int32(), nullable=False),
                pa.field("probability", pa.float32(), nullable=False),
            ]
        ),
        nullable=False,
    )
)

PREDICTION_SET_TYPE: Final = pa.list_(pa.field("element", pa.string(), nullable=False))
LOG_PROBABILITIES_TYPE: Final = pa.list_(pa.field("element", pa.float16(), nullable=False))
SIGNAL_TYPES: Final = {"float32": pa.float32(), "uint64": pa.uint64(), "S48": pa.binary(48)}
"""Arrow type for each dtype in SIGNALS."""

PREDICTIONS: Final = pa.schema(
    [
        column("image", pa.string(), "Path below the scored root, `/` separated.", nullable=False),
        column("status", pa.string(), "`ok` or `failed`.", nullable=False),
        column("error_code", pa.string(), "Stable error code of a failed image; see docs/errors.md."),
        column("error_message", pa.string(), "Error message of a failed image, for people."),
        column("label", pa.string(), "Label of the class with the highest probability."),
        column("class_index", pa.int32(), "Index of that class in the model's output, from 0."),
        column("probability", pa.float32(), "Probability of that class, 0 to 1."),
        column("margin", pa.float32(), "Highest probability minus second highest."),
        column("top_k", TOP_K_TYPE, "The k classes with the highest probabilities, best first, ties by class index."),
        column("width", pa.int32(), "Pixels of the upright picture at full size."),
        column("height", pa.int32(), "Pixels of the upright picture at full size."),
        column("file_size", pa.int64(), "Size of the file in bytes when it was read."),
        column("modified_at", pa.timestamp("us", tz="UTC"), "The file's modification time when it was read."),
        column("sha256", pa.string(), "sha256 of the file's bytes when it was read, 64 hexadecimal digits."),
        column("entropy", pa.float32(), "Entropy of the class probabilities, nats: 0 to ln(number of classes)."),
        column("logsumexp", pa.float32(), "ln of the sum of exp(logit - mean of all logits); the negative energy."),
        column("top_logit", pa.float32(), "Logit of that class minus the mean of all logits."),
        column("log_probabilities", LOG_PROBABILITIES_TYPE, "ln of the probability of every class, by class_index."),
        column("decision", pa.string(), "`accept` or `ask`, by the thresholds on a calibrated model's card."),
        column("prediction_set", PREDICTION_SET_TYPE, "Labels, best first, by the threshold on a calibrated card."),
        *(column(each.name, SIGNAL_TYPES[each.dtype], f"{each.description} Unit: {each.unit}.") for each in SIGNALS),
    ]
)
"""One row per listed image, in listing order. Predictions of earlier versions lack the columns after `modified_at`.

Softmax is part of the model and keeps only the differences of the logits, so the mean is subtracted from logits. A
probability below 1.2e-38 counts as 1.2e-38.
"""
FIRST_COLUMNS: Final = PREDICTIONS.names[: PREDICTIONS.get_field_index("modified_at") + 1]
"""The columns that predictions of every version have."""

POSITION: Final = column(
    "position", pa.int64(), "Sort key of the image in the whole listing, for `batchland merge`.", nullable=False
)
SHARD_PREDICTIONS: Final = PREDICTIONS.append(POSITION)
"""One row per image of a shard; `batchland merge` turns them into PREDICTIONS."""


KNOWN: Final = column(
    "known",
    pa.float32(),
    "Share of known photos at least as far from the others as this image, 0 to 1; below 0.05: stranger.",
)
_OURS: Final = frozenset((*SHARD_PREDICTIONS.names, "known", "features"))
RESERVED: Final = frozenset((
    *_OURS, "key",
    "true_index", "true_label", "predicted_index", "predicted_label", "correct", "true_rank", "true_probability",
    "suspicion", "suspected_label_error", "label_error_probability",
))  # fmt: skip
"""Names that own columns of an image list cannot have: columns of predictions, plans and report tables."""


def features_column(width: int) -> pa.Field:
    """The column of features, vectors of length `width`."""
    kind = pa.list_(pa.field("element", pa.float16(), nullable=False), width)
    return column("features", kind, "Features of the model, scaled to length 1; only with the option `features`.")


def predictions_schema(card: ModelCard, *, features: bool = False, positions: bool = False) -> pa.Schema:
    """The schema of a run's rows: PREDICTIONS and the columns of the options. positions: with POSITION, for a shard."""
    further = [KNOWN] if card.known else []
    further += [features_column(card.features)] if features and card.features else []
    return pa.schema([*PREDICTIONS, *further, *([POSITION] if positions else [])])


def full_schema(found: pa.Schema, *, positions: bool = False) -> pa.Schema:
    """The schema of stored rows with all columns of this version. Columns that are not batchland's are left out."""
    further = [KNOWN] if "known" in found.names else []
    kinds = [found.field("features").type] if "features" in found.names else []
    further += [features_column(kind.list_size) for kind in kinds if pa.types.is_fixed_size_list(kind)]
    return pa.schema([*PREDICTIONS, *further, *([POSITION] if positions else [])])


def own_schema(found: pa.Schema) -> pa.Schema:
    """The columns of stored rows that are not batchland's: those of the image list."""
    return pa.schema([field.remove_metadata() for field in found if field.name not in _OURS])


def complete_columns(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows of an earlier version with the columns of `schema`: null where they have none."""
    if rows.schema.equals(schema):
        return rows
    columns = [
        rows.column(field.name) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class Counts(Document):
    """Number of images that a run listed, and of their results; always `listed = ok + failed`."""

    listed: Count
    ok: Count
    failed: Count
    failed_by_code: dict[str, Count]
    decisions: dict[str, Count] = Field(default_factory=dict)
    """Good images by decision, `accept` and `ask`; empty without thresholds on the model's card."""

    @classmethod
    def of(cls, listed: int, failed_by_code: Counter[str], decisions: Counter[str]) -> Self:
        """The counts of a run, codes and decisions in order."""
        failed = failed_by_code.total()
        by_code, by_decision = (dict(sorted(each.items())) for each in (failed_by_code, decisions))
        return cls(listed=listed, ok=listed - failed, failed=failed, failed_by_code=by_code, decisions=by_decision)

    @model_validator(mode="after")
    def _every_image_is_accounted_for(self) -> "Counts":
        if self.listed != self.ok + self.failed or self.failed != sum(self.failed_by_code.values()):
            raise ValueError(f"{self.listed} listed images are not {self.ok} ok and {self.failed} failed ones")
        return self


class ModelInfo(Document):
    """The model that scored."""

    name: str
    architecture: str
    sha256: str
    """sha256 of the ONNX file."""
    file: str
    """Its path, as given."""
    features_of: str | None = None
    """sha256 of the ONNX file that this one was made from with the same features, by `batchland calibrate` or
    `batchland classes add`."""

    @property
    def features_sha256(self) -> str:
        """Equal for models with the same features."""
        return self.features_of or self.sha256


class PredictionsInfo(Document):
    """Metadata `batchland` of a predictions file: enough to read and evaluate it without the model.

    Holds nothing that differs between two runs over the same input, so that a resumed run writes the same bytes.
    """

    schema_version: Literal[1] = 1
    run_id: str
    """Derived from model, options and input: the same run has the same id."""
    model: ModelInfo
    classes: tuple[ClassName, ...]
    """Class names in the order of class_index."""
    images: str
    """The scored root, as an absolute path."""
    device: str
    """`cpu`, `cuda:N`, or several GPUs as `cuda:0,1`."""
    provider: str
    """The onnxruntime execution provider that the session used."""
    decoder: str | None = None
    """What decoded JPEGs on GPUs; None if the CPU did."""
    batch_size: int
    top_k: int
    counts: Counts
    versions: dict[str, str]


class Execution(Document):
    """How GPUs ran the model."""

    nodes: dict[str, Count]
    """The model's nodes, by the execution provider that they were placed on."""
    cpu_nodes: tuple[str, ...]
    """Nodes that onnxruntime placed on the CPU, by operator and name."""
    settings: dict[str, str]
    """Settings of the execution provider, chosen by measurement for this model, GPU and batch size."""
    decoded_on_gpu: Count = 0
    """Images of this process with a JPEG that a GPU decoded; the CPU decoded the others."""


class Seconds(Document):
    """Where the time went. list and write are wall seconds; read, decode and infer are summed over threads."""

    list: float
    read: float
    decode: float
    infer: float
    write: float
    total: float
    """Wall seconds of the whole run, start-up of the session included."""


class WrittenFile(Document):
    """One file of the output."""

    path: str
    """Relative to the manifest."""
    rows: Count
    bytes: Count
    sha256: str


class ShardInfo(Document):
    """The index of a shard, and values that must be equal in all shards of a listing."""

    index: Count
    """From 0."""
    count: Annotated[int, Field(gt=0)]
    dealt_by: Literal["image", "container", "range"]
    """How images were assigned to shards: each image or container by its name, or a range of a plan."""
    listed: Count
    """Number of images, or containers, in the whole listing."""
    names_sha256: str
    """sha256 of the names of all of them, in order, each followed by a zero byte."""
    fingerprint: dict[str, Any]
    """Everything besides the image that determines a row."""
    first: Count | None = None
    """For a range: the index of its first image in the plan, from 0."""
    facts_sha256: tuple[str, ...] = ()
    """For a range: the digests of its parts, from which input_fingerprint is computed."""


class MergedShard(Document):
    """A shard that an output was merged from."""

    index: Count
    images: Count
    host: str
    device: str
    seconds: float
    """Wall seconds of its last run."""
    manifest_sha256: str


class Manifest(Document):
    """`*.manifest.json` beside a predictions file: written last, so that its presence means the run is complete."""

    schema_version: Literal[1] = 1
    run_id: str
    created_at: str
    """Time at which the run was complete, ISO 8601, UTC."""
    config: dict[str, Any]
    """The options as they were resolved."""
    model: ModelInfo
    images: str
    """The scored root, as an absolute path."""
    input_fingerprint: str
    """sha256 of the digests of all parts, in order. The digest of a part is over the names, sizes, modification times
    and own columns of its images."""
    ignored: dict[str, Count]
    """Files below the root that were not listed, by extension or kind."""
    device: str
    provider: str
    decoder: str | None = None
    """What decoded JPEGs on GPUs; None if the CPU did."""
    execution: Execution | None = None
    """None on the CPU."""
    counts: Counts
    resumed_images: Count
    """Images with a row from an interrupted run."""
    kept_images: Count = 0
    """Rows of earlier predictions that a retry of the failed images kept."""
    reused_images: Count = 0
    """Images with a row copied from other predictions, because the content is the same."""
    copied_images: Count = 0
    """Images with a row copied from another image of this run, because the content is the same."""
    seconds: Seconds
    images_per_second: float
    """Images of this process, with the copied ones, divided by its total seconds."""
    files: tuple[WrittenFile, ...]
    versions: dict[str, str]
    host: str
    cores: int
    shard: ShardInfo | None = None
    """For the output of one shard."""
    shards: tuple[MergedShard, ...] = ()
    """The shards of a merged output. Then counts and seconds are sums over the shards, and images_per_second is the
    mean of the shards."""

    @property
    def scored_images(self) -> int:
        """Images that this process scored."""
        return self.timed_images - self.reused_images - self.copied_images

    @property
    def timed_images(self) -> int:
        """Images that this process scored, or copied from an image with the same content."""
        return self.counts.listed - self.resumed_images - self.kept_images
