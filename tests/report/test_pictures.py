"""Thumbnails of the images in the predictions."""

import os
from pathlib import Path

from toys import picture

from batchland.report.pictures import Thumbnails


def test_the_picture_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    data = picture(size=(200, 100))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff\xfe.jpg")).write_bytes(data)
    found = Thumbnails(tmp_path, side=50, budget=100_000).make(r"bad\xff\xfe.jpg", len(data))
    assert (found.width, found.height, found.missing) == (50, 25, "")
    assert found.uri is not None
    assert found.uri.startswith("data:image/jpeg;base64,")
