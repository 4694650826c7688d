"""Options of a report's page."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ReportOptions(BaseModel):
    """How a page is made. No figure depends on these options."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    picture_bytes: Annotated[int, Field(ge=0)] = 900_000
    """Size limit of all thumbnails on the page together, bytes of base64; 0 shows none."""
    thumbnail_side: Annotated[int, Field(ge=32, le=512)] = 168
    """Longest side of a thumbnail, pixels."""
    gallery: Annotated[int, Field(ge=0, le=500)] = 24
    """Images per gallery."""
    command: str | None = None
    """Command line to show on the page."""
    overwrite: bool = False
    """Write into a folder that holds other files, too. They stay."""
