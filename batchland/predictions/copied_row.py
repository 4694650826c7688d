"""Rows of images that have the same file as an earlier image of the run."""

from typing import NamedTuple

import pyarrow as pa

from batchland.errors import ErrorCode
from batchland.images.sources.refs import ImageRef
from batchland.predictions.rows import failed_row, rows_for

_REPEATABLE = ("timeout", "crashed")
"""Errors of an original without a hash. Scoring its copy would give the same error."""


class CopiedRow(NamedTuple):
    """An entry of the output that gets the row of an earlier image, the original."""

    ref: ImageRef
    modified_us: int | None
    """Modification time of the file when it was hashed, in microseconds since 1970, UTC."""
    sha256: str
    """Hash of the content of both files."""
    original: str
    """Name of the earlier image."""
    part: int
    row: int
    """`part` is the index of the part with the original's row; `row` is the index of the row in that part."""

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.ref.name

    def row_like(self, original: pa.RecordBatch) -> pa.RecordBatch:
        """The image's row, made from the original's row.

        It is a failed row if the original changed after it was hashed, or could not be read again.
        """
        if original.column("sha256")[0].as_py() == self.sha256:
            return rows_for(original, [self.ref], [self.modified_us])
        found = original.column("error_code")[0].as_py()
        code: ErrorCode = found if found in _REPEATABLE else "changed"
        message = f"is the same file as {self.original}, which failed or changed; retry it"
        return failed_row(self.ref, code, message, original.schema)
