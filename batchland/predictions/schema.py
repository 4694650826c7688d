"""The predictions file and its manifest: the Arrow schema and the JSON documents."""

from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from batchland.images.signals import SIGNALS
from batchland.models.card import ClassName, ModelCard
from batchland.system.documents import Count, Document, column

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
"""By the dtypes of SIGNALS."""

PREDICTIONS: Final = pa.schema(
    [
        column("image", pa.string(), "Path below the scored root, `/` separated.", nullable=False),
        column("status", pa.string(), "`ok` or `failed`.", nullable=False),
        column("error_code", pa.string(), "Of failed images: the stable code, see docs/errors.md."),
        column("error_message", pa.string(), "Of failed images: what went wrong, for people."),
        column("label", pa.string(), "First choice: its label."),
        column("class_index", pa.int32(), "First choice: its place among the model's outputs."),
        column("probability", pa.float32(), "First choice: its probability, 0 to 1."),
        column("margin", pa.float32(), "Probability of the first choice less that of the second."),
        column("top_k", TOP_K_TYPE, "The first k choices, best first, ties by class index."),
        column("width", pa.int32(), "Pixels of the upright picture at full size."),
        column("height", pa.int32(), "Pixels of the upright picture at full size."),
        column("file_size", pa.int64(), "Bytes, when the file was read."),
        column("modified_at", pa.timestamp("us", tz="UTC"), "The file's modification time when it was read."),
        column("sha256", pa.string(), "sha256 of the file's bytes when it was read, 64 hexadecimal digits."),
        column("entropy", pa.float32(), "Entropy of the class probabilities, nats: 0 to ln(number of classes)."),
        column("logsumexp", pa.float32(), "ln of the sum of exp(logit), logits less their mean: the negative energy."),
        column("top_logit", pa.float32(), "First choice: its logit less the mean of all logits."),
        column("log_probabilities", LOG_PROBABILITIES_TYPE, "ln of the probability of every class, by class_index."),
        column("decision", pa.string(), "`accept` or `ask`, by the thresholds on a calibrated model's card."),
        column("prediction_set", PREDICTION_SET_TYPE, "Labels, best first, by the threshold on a calibrated card."),
        *(column(each.name, SIGNAL_TYPES[each.dtype], f"{each.description} Unit: {each.unit}.") for each in SIGNALS),
    ]
)
"""One row per listed image, in listing order. Predictions of earlier versions lack the columns after `modified_at`.

Softmax is part of the model and keeps only the differences of the logits, so logits are given less their mean. A
probability below 1.2e-38 counts as 1.2e-38.
"""
FIRST_COLUMNS: Final = PREDICTIONS.names[: PREDICTIONS.get_field_index("modified_at") + 1]
"""The columns that predictions of every version have."""

POSITION: Final = column(
    "position", pa.int64(), "The image's place in the whole listing; see batchland/shards.", nullable=False
)
SHARD_PREDICTIONS: Final = PREDICTIONS.append(POSITION)
"""One row per image of a shard; `batchland merge` makes PREDICTIONS of them."""


KNOWN: Final = column(
    "known",
    pa.float32(),
    "Share of the known photos that are as far from the others as this image, 0 to 1; below 0.05 it is a stranger.",
)
_OURS: Final = frozenset((*SHARD_PREDICTIONS.names, "known", "features"))
RESERVED: Final = frozenset((
    *_OURS, "key",
    "true_index", "true_label", "predicted_index", "predicted_label", "correct", "true_rank", "true_probability",
    "suspicion", "suspected_label_error", "label_error_probability",
))  # fmt: skip
"""Names that no further column of an image list can have: those of predictions, plans and the tables of reports."""


def features_column(width: int) -> pa.Field:
    """The column of features, of which there are `width`."""
    kind = pa.list_(pa.field("element", pa.float16(), nullable=False), width)
    return column("features", kind, "The model's features, a vector of length 1. Only with the option features.")


def predictions_schema(card: ModelCard, *, features: bool = False, positions: bool = False) -> pa.Schema:
    """The schema of a run's rows: PREDICTIONS, with the columns that the options ask for. positions: of a shard."""
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
    """Of the ONNX file."""
    file: str
    """Its path, as given."""


class PredictionsInfo(Document):
    """Metadata `batchland` of a predictions file: enough to read and evaluate it without the model.

    Holds nothing that differs between two runs over the same input, so that a resumed run writes the same bytes.
    """

    schema_version: Literal[1] = 1
    run_id: str
    """Derived from model, options and input: the same run has the same id."""
    model: ModelInfo
    classes: tuple[ClassName, ...]
    """In the order of class_index."""
    images: str
    """The scored root, as an absolute path."""
    device: str
    """`cpu`, `cuda:N`, or several GPUs as `cuda:0,1`."""
    provider: str
    """The onnxruntime execution provider that the session really had."""
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
    """Images of this process whose JPEGs the GPUs decoded; the CPU decoded the others."""


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
    """Which shard of a listing this is, and what must be the same for all its shards."""

    index: Count
    """From 0."""
    count: Annotated[int, Field(gt=0)]
    dealt_by: Literal["image", "container", "range"]
    """Each image or container by its name, or a range of a plan."""
    listed: Count
    """Images, or containers, of the whole listing, over all shards."""
    names_sha256: str
    """Over their names, in order, each followed by a zero byte."""
    fingerprint: dict[str, Any]
    """Everything besides the image that determines a row."""
    first: Count | None = None
    """Of a range: the number of its first image in the plan, from 0."""
    facts_sha256: tuple[str, ...] = ()
    """Of a range: the digests that make the input_fingerprint, one a part."""


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
    """ISO 8601, UTC: when the run was complete."""
    config: dict[str, Any]
    """The options as they were resolved."""
    model: ModelInfo
    images: str
    """The scored root, as an absolute path."""
    input_fingerprint: str
    """sha256 over the digests of the parts, in order; each is over its images' names, sizes and modification times, and
    own columns."""
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
    """Images whose rows were taken over from an interrupted run."""
    kept_images: Count = 0
    """Good rows that a retry of the failed images kept."""
    reused_images: Count = 0
    """Images whose rows were taken over from other predictions, because their content is the same."""
    copied_images: Count = 0
    """Images whose rows are those of other images of this run with the same content."""
    seconds: Seconds
    images_per_second: float
    """Images of this process, those with rows of equal images included, over its total seconds."""
    files: tuple[WrittenFile, ...]
    versions: dict[str, str]
    host: str
    cores: int
    shard: ShardInfo | None = None
    """For the output of one shard."""
    shards: tuple[MergedShard, ...] = ()
    """For a merged output: its shards. Counts and seconds are then sums over the shards, images_per_second is the mean
    of the shards."""

    @property
    def scored_images(self) -> int:
        """Images that this process scored."""
        return self.timed_images - self.reused_images - self.copied_images

    @property
    def timed_images(self) -> int:
        """Images of this process: scored, or with the row of an equal image."""
        return self.counts.listed - self.resumed_images - self.kept_images
