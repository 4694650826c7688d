"""The files of a plan: plan.json, written last, and Parquet files with the listed images in order."""

from typing import Final, Literal

import pyarrow as pa

from batchland.predictions.schema import WrittenFile
from batchland.system.arrow import column
from batchland.system.documents import Count, Document

PLAN_NAME: Final = "plan.json"
PLANNED: Final = pa.schema(
    [
        column("image", pa.string(), "The image's name, as in the predictions.", nullable=False),
        column("key", pa.binary(), "Location of the image in its source, if the name is not enough."),
        column(
            "error_code", pa.string(), "For a folder or container that could not be listed: the code of its failed row."
        ),
        column(
            "error_message", pa.string(), "For a folder or container that could not be listed: the reason, for people."
        ),
    ]
)
"""One row per listed image, in listing order."""


class PlanOptions(Document):
    """The options that decided what was listed."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_files: bool = False
    follow_links: bool = False


class Plan(Document):
    """plan.json: a frozen listing. It is written last, so that its presence means that the plan is complete."""

    schema_version: Literal[1] = 1
    created_at: str
    """ISO 8601, UTC."""
    images: str
    """The listed source, as an absolute path or a URL without credentials."""
    image_list: str | None
    """The list that named the images, if one did."""
    options: PlanOptions
    parts: Count
    """Shards to score it with; 0 for any number."""
    without: tuple[str, ...] = ()
    """Earlier plans whose images this one leaves out."""
    listed: Count
    """Images, and folders or containers that could not be listed."""
    unlisted: Count
    """Folders or containers that could not be listed; each will be a failed row."""
    ignored: dict[str, Count]
    """Files that were not listed, by extension or kind."""
    names_sha256: str
    """Over the names in order, each followed by a zero byte."""
    seconds: float
    """Wall seconds of listing and writing."""
    lists: tuple[WrittenFile, ...]
    """The files with the images, in order; paths relative to this file."""
