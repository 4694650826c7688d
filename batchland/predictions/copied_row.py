"""An image whose file is the same as that of an earlier image of the run."""

from typing import NamedTuple

import pyarrow as pa

from batchland.errors import ErrorCode
from batchland.images.sources.refs import ImageRef
from batchland.predictions.rows import failed_row, rows_for

_SAME_FATE = ("timeout", "crashed")
"""Errors of an original whose content was not hashed, and that its copy would have, too."""


class CopiedRow(NamedTuple):
    """An entry of the output that gets the row of an earlier image, the original."""

    ref: ImageRef
    modified_us: int | None
    """Modification time when it was hashed, microseconds since 1970, UTC."""
    sha256: str
    """Of the content of both files."""
    original: str
    """Name of the earlier image."""
    part: int
    row: int
    """Where the original's row is: the index of its part, and its index there."""

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.ref.name

    def row_like(self, original: pa.RecordBatch) -> pa.RecordBatch:
        """The image's row, from that of the original.

        If the original changed after it was hashed, or could not be read again, this is a failed row.
        """
        if original.column("sha256")[0].as_py() == self.sha256:
            return rows_for(original, [self.ref], [self.modified_us])
        found = original.column("error_code")[0].as_py()
        code: ErrorCode = found if found in _SAME_FATE else "changed"
        message = f"is the same file as {self.original}, which failed or changed; retry it"
        return failed_row(self.ref, code, message, original.schema)
