"""The shape of every file that batchland writes: Arrow schemas of tables, pydantic models of JSON documents.

`schemas/*.json` at the top of the repository is generated from here by `make schemas`.
"""

from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from batchland.model_card import ClassName

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

PREDICTIONS: Final = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("label", pa.string()),
        pa.field("class_index", pa.int32()),
        pa.field("probability", pa.float32()),
        pa.field("margin", pa.float32()),
        pa.field("top_k", TOP_K_TYPE),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("file_size", pa.int64()),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""One row per listed image, in listing order.

image: path below the scored root, `/` separated. status: `ok` or `failed`. error_code, error_message: of failed rows.
label, class_index, probability: the first choice. margin: its probability less the second's. top_k: the first k
choices, best first, ties by class index. width, height: pixels of the upright picture at full size. file_size: bytes.
modified_at: the file's modification time when it was read.
"""


class Document(BaseModel):
    """Base of the JSON documents: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Count = Annotated[int, Field(ge=0)]


class Counts(Document):
    """How many images a run listed and what became of them; `listed = ok + failed`, always."""

    listed: Count
    ok: Count
    failed: Count
    failed_by_code: dict[str, Count]


class ModelInfo(Document):
    """Which model scored."""

    name: str
    architecture: str
    sha256: str
    """Of the ONNX file."""
    file: str
    """Its path, as it was given."""


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
    """`cpu` or `cuda:N`."""
    provider: str
    """The onnxruntime execution provider that the session really had."""
    batch_size: int
    top_k: int
    counts: Counts
    versions: dict[str, str]


class Seconds(Document):
    """Where the time went. list, infer and write are wall seconds; read and decode are summed over the workers."""

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
    """sha256 over image names, sizes and modification times, in order."""
    ignored: dict[str, Count]
    """What lay below the root and was not listed, by extension or kind."""
    device: str
    provider: str
    counts: Counts
    resumed_images: Count
    """Rows taken over from an interrupted run."""
    seconds: Seconds
    images_per_second: float
    """Images scored by this process, over its total seconds."""
    files: tuple[WrittenFile, ...]
    versions: dict[str, str]
    host: str
    cores: int
