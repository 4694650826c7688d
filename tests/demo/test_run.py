"""run_demo() on a small sample: both models, and all results in their folders."""

import shutil

import pyarrow.parquet as pq
import pytest
from toys import COLOURS

from batchland.demo.run import SCRATCH, TRANSFER, WEIGHTS, default_models, run_demo
from batchland.errors import UsageError
from batchland.training.options import TrainOptions


@pytest.mark.slow
def test_a_demo_writes_all_results(tmp_path, small_sample):
    folder = tmp_path / "demo"
    shutil.copytree(small_sample.root, folder / "sample")
    small = {"weights": "none", "epochs": 1, "views": 0, "size": 32, "num_workers": 0}
    transfer = TrainOptions(model="transfer", backbone="resnet18", **small)
    result = run_demo(folder, [TrainOptions(model="scratch", **small), transfer])
    assert [model.name for model in result.models] == ["scratch", "transfer"]
    assert sorted(path.name for path in folder.iterdir()) == ["models", "predictions", "report", "runs", "sample"]
    for model in result.models:
        assert model.evaluation.summary.account.scored == small_sample.test_images
        assert (folder / "report" / model.name / "report.html").stat().st_size > 10_000
        assert pq.read_metadata(model.predictions.out).num_rows == small_sample.test_images
    assert result.report.stat().st_size > 10_000
    counts = result.night.manifest.counts
    assert (counts.listed, counts.failed) == (small_sample.incoming_files, small_sample.broken_files)
    assert counts.failed_by_code == {"empty": 1, "not_an_image": 1, "truncated": 1}


def test_the_transfer_model_needs_its_weights_and_timm():
    assert default_models({WEIGHTS, "timm", "torch"}) == (SCRATCH, TRANSFER)
    assert default_models({"timm", "torch"}) == default_models({WEIGHTS}) == (SCRATCH,)


def test_one_model_has_one_report(tmp_path, small_sample):
    folder = tmp_path / "demo"
    shutil.copytree(small_sample.root, folder / "sample")
    result = run_demo(folder, [TrainOptions(model="scratch", epochs=1, size=32, num_workers=0)])
    assert [model.name for model in result.models] == ["scratch"]
    assert result.report == folder / "report" / "scratch" / "report.html"
    assert result.report.stat().st_size > 10_000
    assert sorted(path.name for path in (folder / "report").iterdir()) == ["scratch"]


def test_a_folder_with_other_files_is_refused(tmp_path, colour_folders):
    (tmp_path / "file").touch()
    for path in (colour_folders, tmp_path / "file"):
        with pytest.raises(UsageError) as caught:
            run_demo(path)
        assert str(caught.value) == f"{path}: holds files that are not from a demo; give another folder"
    assert sorted(path.name for path in colour_folders.iterdir()) == list(COLOURS)
