"""How the page of a report is made."""

from typing import Annotated

from pydantic import Field

from batchland.system.options import Options


class ReportOptions(Options):
    """How the page is made. The figures do not depend on it."""

    picture_bytes: Annotated[int, Field(ge=0)] = 1_200_000
    """Bytes of all thumbnails on the page together, as base64: 6/10 for the galleries, 4/10 for browsing images. 0
    shows none."""
    thumbnail_side: Annotated[int, Field(ge=32, le=512)] = 168
    """Longest side of a thumbnail, pixels."""
    gallery: Annotated[int, Field(ge=0, le=500)] = 24
    """Images per gallery."""
    map: bool = True
    """Draw a map of the images where the predictions have features, which takes some seconds."""
    command: str | None = None
    """The command line, shown on the page as its origin."""
    inputs: tuple[str, ...] = ()
    """Paths or URLs that the report is made from. If given, an earlier report is replaced only if it was made from the
    same; if not, any earlier report is."""
    overwrite: bool = False
    """Write into a folder that holds other files or another report; the other files stay."""
