"""run_demo(): the whole way on a small sample, both models, everything where it says."""

import pyarrow.parquet as pq
import pytest
from toys import COLOURS

from batchland.demo.run import run_demo
from batchland.demo.sample import draw_sample
from batchland.errors import UsageError
from batchland.training.options import TrainOptions


def test_everything_is_there_and_agrees(tmp_path):
    folder = tmp_path / "demo"
    drawn = draw_sample(folder / "sample", images=80)
    options = TrainOptions(weights="none", epochs=1, views=0, size=32, num_workers=0)
    result = run_demo(folder, options)
    assert [model.name for model in result.models] == ["scratch", "transfer"]
    assert sorted(path.name for path in folder.iterdir()) == ["models", "predictions", "report", "runs", "sample"]
    for model in result.models:
        assert model.evaluation.summary.account.scored == drawn.test_images
        assert (folder / "report" / model.name / "report.html").stat().st_size > 10_000
        assert pq.read_metadata(model.predictions.out).num_rows == drawn.test_images
    assert result.report.stat().st_size > 10_000
    counts = result.night.manifest.counts
    assert (counts.listed, counts.failed) == (drawn.incoming_files, drawn.broken_files)
    assert counts.failed_by_code == {"empty": 1, "not_an_image": 1, "truncated": 1}


def test_somebodys_folder_is_no_place_for_a_demo(tmp_path, colour_folders):
    (tmp_path / "file").touch()
    for place in (colour_folders, tmp_path / "file"):
        with pytest.raises(UsageError) as caught:
            run_demo(place)
        assert str(caught.value) == f"{place}: holds something that is not a demo's; give another folder"
    assert sorted(path.name for path in colour_folders.iterdir()) == list(COLOURS)
