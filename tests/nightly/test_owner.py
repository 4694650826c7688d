"""A complete partition is kept if it belongs to the job, and rejected if it belongs to another."""

import shutil
from datetime import date

from job_files import EVALUATION, JOB
from toys import toy_card, write_toy_model

from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.runner import run_night
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import score

NIGHT = date(2024, 11, 23)


def run(project, *settings, force=False):
    return run_night(load_job(project / "toy.toml", settings), NIGHT, force=force)


def warnings(caplog):
    """Warnings since the last call."""
    message = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return message


def test_a_complete_night_keeps_its_model_until_forced(project, caplog):
    run(project)
    write_toy_model(project / "toy.onnx", toy_card().model_copy(update={"name": "newer"}))
    assert run(project).record.models[0].model.name == "toy"
    assert warnings(caplog) == [
        f"toy: {project}/toy.onnx is another model than the one that scored it; a run with force scores it again"
    ]
    assert run(project, force=True).record.models[0].model.name == "newer"


def test_a_kept_night_keeps_the_name_of_its_model(project, caplog):
    (project / "toy.toml").write_text(JOB + EVALUATION)
    before = run(project).record
    write_toy_model(project / "toy-v2.onnx", toy_card().model_copy(update={"name": "newer"}))
    (kept,) = run(project, "model=toy-v2.onnx").record.models
    assert kept == before.models[0].model_copy(update={"state": "kept"})
    message = f"{project}/toy-v2.onnx is another model than the one that scored it; a run with force scores it again"
    assert warnings(caplog) == [f"toy: {message}"]
    assert [path.name for path in (project / "runs/toy/latest/report").iterdir()] == ["toy"]
    plan = plan_night(load_job(project / "toy.toml", ["model=toy-v2.onnx"]), NIGHT).lines
    assert plan[3] == f"  though {message}"
    assert plan[4].endswith(f"; report {project}/runs/toy/2024-11-23/report/toy")
    # A run that ends before the models keeps their records.
    early = run(project, "model=toy-v2.onnx", "images=in/later", force=True)
    assert (early.attempt.outcome, early.record.outcome, early.record.models) == ("missing_input", "ok", (kept,))
    (replaced,) = run(project, "model=toy-v2.onnx", force=True).record.models
    assert (replaced.name, replaced.state, replaced.model.name) == ("toy-v2", "replaced", "newer")


def test_a_partition_of_another_job_or_of_other_images_is_rejected(project):
    assert run(project).record.good
    shutil.copytree(project / "in", project / "elsewhere")
    (project / "two.toml").write_text(JOB)
    partition, way_out = project / "out" / "date=2024-11-23", '"output", or replace the night'
    kept = (partition / "_manifest.json").read_bytes()
    stays = " (nothing was changed, and the night stays good)"
    for job, message, ending in (
        (load_job(project / "two.toml"), f"the predictions of job toy; give job two another {way_out}", ""),
        (
            load_job(project / "toy.toml", ["images=elsewhere/{date}"]),
            f"the predictions of {project}/in/2024-11-23, not of {project}/elsewhere/2024-11-23; "
            f"give job toy another {way_out}",
            stays,
        ),
    ):
        attempt, error = run_night(job, NIGHT).attempt, f"{partition}: holds {message}"
        assert (attempt.exit_code, attempt.error) == (2, error + ending)
        assert [str(problem) for problem in plan_night(job, NIGHT).problems] == [error]
        assert (partition / "_manifest.json").read_bytes() == kept
    assert run_night(load_job(project / "two.toml", ["output=out2"]), NIGHT).record.models[0].state == "scored"
    assert run_night(load_job(project / "two.toml"), NIGHT, force=True).record.models[0].state == "replaced"
    assert run(project).attempt.error.startswith(f"{partition}: holds the predictions of job two; ")


def test_a_rejected_partition_ends_the_night_before_scoring(project):
    models = JOB.replace('model = "toy.onnx"', "") + "[models]\nfirst = 'toy.onnx'\nsecond = 'toy.onnx'\n"
    (project / "two.toml").write_text(models)
    assert run_night(load_job(project / "two.toml"), NIGHT).record.good
    shutil.rmtree(project / "out" / "model=first")
    (project / "toy.toml").write_text(models)
    assert run(project).attempt.error.startswith(f"{project}/out/model=second/date=2024-11-23: holds the predictions ")
    assert [path.name for path in (project / "out").iterdir()] == ["model=second"]


def test_a_partition_written_by_score_is_accepted(project, caplog):
    options = ScoreOptions(model=project / "toy.onnx", device="cpu", batch_size=2)
    score(project / "in" / str(NIGHT), project / "out" / f"date={NIGHT}", options)
    assert run(project).record.models[0].state == "kept"
    assert warnings(caplog) == []


def test_changed_options_of_a_kept_night_are_named(project, caplog):
    run(project)
    settings = ["top_k=3", 'exclude=["*.png"]', "num_workers=1", "part_size=8"]
    message = 'it was scored with top_k = 5 (now 3), exclude = [] (now ["*.png"]); a run with force scores it again'
    assert run(project, *settings).record.models[0].state == "kept"
    assert warnings(caplog) == [f"toy: {message}"]
    assert plan_night(load_job(project / "toy.toml", settings), NIGHT).lines[3] == f"  though {message}"
    assert run(project, *settings, force=True).record.models[0].state == "replaced"
    assert run(project, *settings).record.models[0].state == "kept"
    assert warnings(caplog) == []


def test_an_output_inside_the_images_is_rejected(project):
    message = f'{project}/in/out/date=2024-11-23: lies inside the images to score; give job toy another "output"'
    settings = ("images=in", "output=in/out")
    assert run(project, *settings).attempt.error == message
    assert [str(problem) for problem in plan_night(load_job(project / "toy.toml", settings), NIGHT).problems] == [
        message
    ]
