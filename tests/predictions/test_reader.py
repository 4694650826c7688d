"""Predictions that are replaced while they are read."""

import pytest
from toys import COLOURS, options, picture

from batchland import score
from batchland.errors import UsageError
from batchland.predictions.reader import StoredPredictions


@pytest.mark.parametrize("name", ["p.parquet", "p"])
def test_rows_of_two_runs_are_never_mixed(tmp_path, toy_model, name):
    """A report reads them several times, and puts rows and labels together by the rows' numbers."""
    photos, out = tmp_path / "photos", tmp_path / name
    photos.mkdir()
    for number in range(20):
        (photos / f"{number:02}.jpg").write_bytes(picture(list(COLOURS.values())[number % 3]))
    score(photos, out, options(toy_model))
    stored = StoredPredictions(out)
    first, last = stored.parts()[0], stored.parts()[-1]
    names = stored.table(first, ["image"])
    assert stored.table(first, ["image"]) == names
    (photos / "00.jpg").unlink()
    score(photos, out, options(toy_model, overwrite=True))
    with pytest.raises(UsageError, match=rf"{name}: another run has replaced it while it was read; run the command"):
        stored.table(last, ["image"])
    assert StoredPredictions(out).table(last, ["image"]) != names
