"""Canaries end a night before it begins if the model, the decoder or the preprocessing has changed."""

import tempfile
from datetime import date

import numpy as np
import pyarrow.parquet as pq
import pytest
from photo_like import deliver_photos
from toys import picture, toy_card, write_toy_model

import batchland.images.preprocess as preprocessing
from batchland.doctor.examine import examine_job, examine_model
from batchland.errors import ModelError
from batchland.models.canaries import canaries_path, write_canaries
from batchland.models.session import open_session
from batchland.monitoring import canaries
from batchland.monitoring.canaries import check_canaries
from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.runner import run_night
from batchland.scoring.engines import local
from batchland.scoring.engines.local import LocalEngine
from batchland.scoring.options import ScoreOptions

NIGHT = date(2024, 11, 23)


@pytest.fixture
def model(tmp_path):
    """A toy that answers by the mean colour of 64 x 48 pixels."""
    card = toy_card().model_copy(update={"preprocess": preprocessing.PreprocessSpec(height=48, width=64)})
    path = write_toy_model(tmp_path / "toy.onnx", card)
    write_canaries(open_session(path, "cpu"))
    return path


def check(model, **values):
    with LocalEngine(model, ScoreOptions(device="cpu", **values)) as engine:
        return check_canaries(engine)


@pytest.mark.parametrize("values", [{}, {"batch_size": 5, "num_workers": 3}, {"top_k": 1, "probabilities": "top"}])
def test_an_unchanged_model_passes_with_any_options(model, values):
    found = check(model, **values)
    assert (found.images, found.tolerance) == (24, 0.05)
    assert found.largest_difference < 1e-6


def _slightly_dark(picture):
    """By too little for the tolerance."""
    return picture._replace(pixels=picture.pixels - (picture.pixels > 0))


def test_canaries_are_not_written_to_disk(model, monkeypatch, tmp_path):
    """A killed run would leave it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert check(model).images == 24


def test_some_canaries_are_enough_while_the_conditions_stay(model, monkeypatch):
    """Each night goes on where the last one ended; a canary for every 100 images, but at least one."""
    with LocalEngine(model, ScoreOptions(device="cpu")) as engine:
        checks = [check_canaries(engine)]
        for images in (150, 50, 2000, 250, 10**6):
            checks.append(check_canaries(engine, checks[-1], images))
        changed = check_canaries(engine, checks[-1].model_copy(update={"conditions": "other"}), 150)
        decode = preprocessing._decode
        monkeypatch.setattr(preprocessing, "_decode", lambda *args, **options: _slightly_dark(decode(*args, **options)))
        decoded = check_canaries(engine, checks[-1], 150)
    assert [(each.first, each.images) for each in checks] == [(0, 24), (0, 1), (1, 1), (2, 20), (22, 2), (0, 24)]
    assert {(each.first, each.images) for each in (changed, decoded)} == {(0, 24)}
    assert len({each.conditions for each in checks}) == 1


def test_nights_score_some_canaries_after_a_good_night(model, tmp_path, monkeypatch, caplog):
    deliver_photos(tmp_path / "in", 6, seed=1)
    (tmp_path / "toy.toml").write_text(
        'images = "in"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\n[monitor]\naction = "off"\n'
    )
    job = load_job(tmp_path / "toy.toml")

    def scored(day, **options):
        result = run_night(job, date(2024, 11, day), **options)
        return result.attempt.outcome, result.record.models[0].canaries and result.record.models[0].canaries.images

    assert [scored(day) for day in (1, 2, 3)] == [("ok", 24), ("ok", 1), ("ok", 1)]
    assert [text.partition(",")[0] for text in caplog.messages if "largest difference" in text] == [
        "toy: 24 canaries agree",
        *["toy: 1 canary agrees"] * 2,
    ]
    assert scored(3, force=True) == ("ok", 24)
    monkeypatch.setattr(canaries, "versions", lambda: {"onnxruntime": "9.9"})
    assert [scored(day) for day in (4, 5)] == [("ok", 24), ("ok", 1)]
    fault = preprocessing._decode
    monkeypatch.setattr(preprocessing, "_decode", lambda *args, **options: 1 / 0)
    assert scored(6) == ("failed", None)
    monkeypatch.setattr(preprocessing, "_decode", fault)
    assert scored(7) == ("ok", 24)  # after a night that failed


def swapped_colours(pixels):
    return pixels[..., ::-1]


def too_dark(pixels):
    return pixels // 2


def upside_down(pixels):
    """Invisible to a mean colour, so only the crop shows it."""
    return np.ascontiguousarray(pixels[: len(pixels) // 2])


@pytest.mark.parametrize("fault", [swapped_colours, too_dark, upside_down])
def test_a_fault_of_decoding_is_found(model, monkeypatch, fault):
    decode = preprocessing._decode

    def broken(data, kind, spec, **options):
        decoded = decode(data, kind, spec, **options)
        return decoded._replace(pixels=np.ascontiguousarray(fault(decoded.pixels)))

    monkeypatch.setattr(preprocessing, "_decode", broken)
    with pytest.raises(ModelError) as caught:
        check(model)
    message = str(caught.value)
    assert message.startswith(f"{model}: gives other probabilities than when it was made, for ")
    assert message.endswith("; its decoder, preprocessing, onnxruntime or device has changed")
    assert f" of 24 images of {canaries_path(model)}: 0." in message


def test_a_canary_that_cannot_be_decoded_is_named(model, monkeypatch):
    monkeypatch.setattr(preprocessing, "_decode", lambda data, spec, reuse: 1 / 0)
    with pytest.raises(ModelError, match=r"canary 00\.jpeg cannot be scored any more: "):
        check(model)


def test_canaries_of_another_model_are_found(model):
    before = canaries_path(model).read_bytes()
    write_toy_model(model, toy_card().model_copy(update={"name": "newer"}))
    with pytest.raises(ModelError) as caught:
        check(model)
    assert str(caught.value).startswith(f"{model}: is another model than the one of {canaries_path(model)} (sha256 ")
    assert canaries_path(model).read_bytes() == before


@pytest.mark.parametrize("fault", ["no rows", "folder", "broken link"])
def test_canaries_that_cannot_be_read_are_an_error_of_the_model(model, fault):
    path = canaries_path(model)
    table = pq.read_table(path)
    path.unlink()
    if fault == "no rows":
        pq.write_table(table.slice(0, 0), path)
    elif fault == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    with pytest.raises(ModelError) as caught:
        check(model)
    assert str(caught.value).startswith(f"{path}: not canaries that this version of batchland can read (")
    assert fault != "no rows" or "(it has no probabilities); make the model again" in str(caught.value)


def test_a_check_and_the_doctor_find_canaries_of_another_model(model, tmp_path):
    """Not if the job does not check them."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    (tmp_path / "toy.toml").write_text('images = "in"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\n')
    write_toy_model(model, toy_card().model_copy(update={"name": "newer"}))
    (problem,) = plan_night(load_job(tmp_path / "toy.toml"), NIGHT, open_models=True).problems
    assert (problem.exit_code, str(problem).partition(" (")[0]) == (
        5,
        f"{model}: is another model than the one of {canaries_path(model)}",
    )
    for checks in (examine_model(model, "cpu"), examine_job(tmp_path / "toy.toml")):
        assert [each.found for each in checks if each.name.startswith("model")] == [str(problem)]
    unchecked = load_job(tmp_path / "toy.toml", ["monitor.canaries=false"])
    assert plan_night(unchecked, NIGHT, open_models=True).problems == ()


def test_a_night_scores_them_first_and_ends_if_they_differ(model, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    (tmp_path / "toy.toml").write_text('images = "in"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\n')
    job = load_job(tmp_path / "toy.toml")
    assert plan_night(job, NIGHT).lines[2].endswith(f"1 image of {tmp_path}/in, after the canaries")
    record = run_night(job, NIGHT).record
    assert record.models[0].canaries.images == 24
    assert run_night(job, NIGHT).record.models[0].canaries == record.models[0].canaries  # kept
    write_toy_model(model, toy_card().model_copy(update={"name": "newer"}))
    tomorrow = date(2024, 11, 24)
    attempt = run_night(job, tomorrow).attempt
    assert (attempt.outcome, attempt.exit_code) == ("failed", 5)
    assert attempt.error.startswith(f"{model}: is another model than the one of ")
    assert not (tmp_path / "out" / f"date={tomorrow}").exists()
    unchecked = load_job(tmp_path / "toy.toml", ["monitor.canaries=false"])
    assert run_night(unchecked, tomorrow).record.models[0].canaries is None


def test_the_canaries_of_all_models_come_before_the_first_image_in_the_same_sessions(model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture())
    job_file = tmp_path / "toy.toml"
    job_file.write_text(
        'images = "in"\noutput = "out"\ndevice = "cpu"\n[models]\none = "toy.onnx"\nnone = "none.onnx"\n'
        'two = "two.onnx"\n'
    )
    write_canaries(open_session(write_toy_model(tmp_path / "two.onnx"), "cpu"))
    write_toy_model(tmp_path / "none.onnx")
    seen, opened = [], []
    score, open_it = LocalEngine.score, local.open_session

    def watched(self, images, *arguments, **options):
        images = list(images)
        seen.append((self.model.path.name, len(images) - images.count(None)))
        return score(self, images, *arguments, **options)

    monkeypatch.setattr(LocalEngine, "score", watched)
    monkeypatch.setattr(
        local, "open_session", lambda path, *rest, **more: opened.append(path.name) or open_it(path, *rest, **more)
    )
    record = run_night(load_job(job_file), NIGHT).record
    assert [(run.name, run.canaries and run.canaries.images) for run in record.models] == [
        ("one", 24), ("none", None), ("two", 24)
    ]  # fmt: skip
    assert seen == [("toy.onnx", 24), ("two.onnx", 24), ("toy.onnx", 1), ("none.onnx", 1), ("two.onnx", 1)]
    assert opened == ["toy.onnx", "none.onnx", "two.onnx"]

    seen.clear()
    write_toy_model(tmp_path / "two.onnx", toy_card().model_copy(update={"name": "newer"}))
    record, attempt = run_night(load_job(job_file), NIGHT, force=True)
    assert (attempt.outcome, attempt.exit_code) == ("failed", 5)
    assert attempt.error.startswith(f"{tmp_path}/two.onnx: is another model than the one of ")
    assert seen == [("toy.onnx", 24), ("toy.onnx", 1), ("none.onnx", 1)]  # other models still score
    assert [run.state for run in record.models] == ["replaced", "replaced", "scored"]
