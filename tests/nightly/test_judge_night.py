"""Nights without labels: a spoiled one is suspicious, names the change, and never becomes usual by itself."""

import json
import os
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photo_like import as_jpeg, deliver_black, deliver_photos, photo
from toys import toy_card, write_toy_model

from batchland.errors import UsageError
from batchland.models.decisions import KnownPhotos
from batchland.monitoring.reference import Reference
from batchland.monitoring.schema import AccuracyEstimate, Finding, NightVerdict
from batchland.nightly.accept import accept_night
from batchland.nightly.history import nights, table
from batchland.nightly.job import load_job
from batchland.nightly.job_tables import MonitorTable
from batchland.nightly.judge_night import broken_limits, explain, read_photos
from batchland.nightly.notifications.chat import slack_message
from batchland.nightly.notifications.message import compose
from batchland.nightly.notifications.pictures import choose_pictures
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_run, read_runs
from batchland.nightly.recorder import Recorder
from batchland.nightly.run_record import ModelRun, RunRecord
from batchland.nightly.run_text import describe_model, describe_run, describe_verdict
from batchland.nightly.runner import NightResult, run_night
from batchland.scoring.options import ScoreOptions
from batchland.scoring.score import score
from batchland.system.text import first_few
from batchland.trend.overview import job_views

FIRST = date(2026, 11, 1)
COUNT = 30


def make_project(folder: Path) -> Path:
    (folder / "toy.toml").write_text('images = "in/{date}"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\n')
    write_toy_model(folder / "toy.onnx")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def run(project: Path, number: int, *settings: str, force: bool = False) -> NightResult:
    return run_night(load_job(project / "toy.toml", settings), day(number), force=force)


def photos(project: Path, number: int, count: int = COUNT, light: float | None = None) -> None:
    deliver_photos(project / "in" / str(day(number)), count, seed=number, light=light)


def reference_of(record: RunRecord) -> list[date]:
    verdict = record.models[0].monitor
    assert verdict is not None
    return list(verdict.reference)


@pytest.fixture(scope="module")
def scored_nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("nights"))
    for number in range(6):
        photos(project, number)
        assert run(project, number).attempt.exit_code == 0
    return project


@pytest.fixture
def six_nights(scored_nights: Path, tmp_path: Path) -> Path:
    """Six good nights, in a folder that the test may change."""
    return Path(shutil.copytree(scored_nights, tmp_path, symlinks=True, dirs_exist_ok=True))


def test_photos_then_black_pictures_then_one_photo(project: Path) -> None:
    """The night of black pictures ends with exit code 6, and so does that of one photo; a good one is good again."""
    photos(project, 0, count=90)
    deliver_black(project / "in" / str(day(1)), 90)
    photos(project, 2, count=1)
    photos(project, 3, count=90)
    ended = [run(project, number).attempt for number in range(4)]
    assert [(each.outcome, each.exit_code) for each in ended] == [
        ("ok", 0),
        ("suspicious", 6),
        ("suspicious", 6),
        ("ok", 0),
    ]
    accept = "accept the night, or correct the delivery and replace it"
    shown = first_few(read_run(project / "runs/toy" / str(day(1))).models[0].monitor.pictures)
    assert ended[1].error == (
        "90 of 90 images have one colour and nothing in it (usually none); 89 of 90 images are copies of others of "
        f"this night (usually none); look at {shown}; {accept}"
    )
    assert ended[2].error == f"1 image, usually 90; look at the delivery; {accept}"
    verdict = read_run(project / "runs/toy" / str(day(1))).models[0].monitor
    assert verdict is not None
    assert [(each.kind, each.since) for each in verdict.findings] == [("blank", None), ("copies", None)]
    assert verdict.pictures == ("000.jpg", "001.jpg", "002.jpg", "003.jpg", "004.jpg", "005.jpg")
    assert verdict.notes == ("1 of 5 nights for a reference; until then only gross faults are found",)


def test_a_dark_night_is_found_against_the_reference_and_never_joins_it(six_nights: Path) -> None:
    photos(six_nights, 6, light=0.35)
    photos(six_nights, 7)
    dark, good = run(six_nights, 6), run(six_nights, 7)
    assert (dark.attempt.outcome, dark.attempt.exit_code, good.attempt.outcome) == ("suspicious", 6, "ok")
    verdict = dark.record.models[0].monitor
    assert verdict is not None
    assert (verdict.judged_by, verdict.reference) == ("reference", tuple(day(number) for number in range(6)))
    assert "brightness" in {finding.what for finding in verdict.findings}
    assert all(finding.strength > 1 for finding in verdict.findings)
    assert len(verdict.pictures) == 6
    note = "the reference has 6 nights; with fewer than 14, damage in half of a night may not be found"
    assert verdict.notes == (note,)
    assert reference_of(good.record) == [day(number) for number in range(6)]


def write_newer_model(path: Path) -> None:
    write_toy_model(path, toy_card().model_copy(update={"name": "newer"}))


def test_a_model_under_a_new_file_name_keeps_the_reference_of_pictures(six_nights: Path) -> None:
    """The documented way to change a model; then as one of several models, and back."""
    write_newer_model(six_nights / "newer.onnx")
    photos(six_nights, 6, light=0.35)
    photos(six_nights, 7)
    dark, good = (run(six_nights, number, "model=newer.onnx") for number in (6, 7))
    assert (dark.attempt.outcome, good.attempt.outcome) == ("suspicious", "ok")
    for result in (dark, good):
        assert reference_of(result.record) == [day(number) for number in range(6)]
        assert "the reference was scored by another model; only pictures are compared" in (
            result.record.models[0].monitor.notes
        )
    write_toy_model(six_nights / "third.onnx", toy_card().model_copy(update={"name": "third"}))
    job = (six_nights / "toy.toml").read_text()
    models = '[models]\nold = "toy.onnx"\nthird = "third.onnx"\n'
    (six_nights / "toy.toml").write_text(job.replace('model = "toy.onnx"\n', "") + models)
    photos(six_nights, 8)
    both = run(six_nights, 8).record
    usual = tuple(day(number) for number in range(6))
    old, third = (model.monitor for model in both.models)
    assert (old.reference, third.reference) == (usual, (*usual, day(7)))
    notes = "the reference has {} nights; with fewer than 14, damage in half of a night may not be found"
    another = "the reference was scored by another model; only pictures are compared"
    assert (old.notes, third.notes) == ((notes.format(6),), (notes.format(7), another))
    (six_nights / "toy.toml").write_text(job)
    photos(six_nights, 9)
    back = run(six_nights, 9).record.models[0].monitor
    assert (back.reference, back.notes) == ((*usual, day(8)), (notes.format(7),))


def test_a_new_model_of_a_job_that_scores_only_new_images_counts_its_own(project: Path) -> None:
    """It scores all images that the other model has scored before: neither too many nor copies."""
    write_newer_model(project / "newer.onnx")
    job = 'images = "in"\nmode = "new"\noutput = "out"\ndevice = "cpu"\n[models]\ntoy = "toy.onnx"\n'
    (project / "toy.toml").write_text(job)
    for number in range(2):
        deliver_photos(project / "in" / str(number), COUNT, seed=number)
        assert run(project, number).attempt.outcome == "ok"
    deliver_photos(project / "in/2", COUNT, seed=2)
    (project / "toy.toml").write_text(f'{job}newer = "newer.onnx"\n')
    result = run(project, 2)
    assert [model.counts.listed for model in result.record.models] == [COUNT, 3 * COUNT]
    assert (result.attempt.outcome, result.attempt.error) == ("ok", None)


HINT = (
    "the nights have one folder of images; if images stay in it on purpose, set repeats = true in [monitor], or "
    'mode = "new" to score only new ones'
)


def test_what_is_left_in_one_folder_for_all_nights_is_found(project: Path) -> None:
    """Leftover files and renamed copies; other pictures are good, and so are repeats that the job allows."""
    inbox, one = project / "in", "images=in"
    photos_of_the_first = [as_jpeg(photo(np.random.default_rng(number))) for number in range(COUNT)]
    inbox.mkdir()
    for number, content in enumerate(photos_of_the_first):
        (inbox / f"{number}.jpg").write_bytes(content)
    assert run(project, 0, one).attempt.outcome == "ok"
    left = run(project, 1, one)
    assert (left.attempt.exit_code, left.attempt.error) == (
        6,
        f"30 of 30 images are copies of earlier ones, most of {day(0)} (usually none); look at 0.jpg, 1.jpg, 10.jpg "
        f"and 3 more; accept the night, or correct the delivery and replace it",
    )
    assert f"  note: {HINT}" in describe_run(left.record).splitlines()
    for path in list(inbox.iterdir()):
        path.rename(inbox / f"again-{path.name}")
    assert run(project, 1, one, force=True).attempt.exit_code == 6
    shutil.rmtree(inbox)
    deliver_photos(inbox, COUNT, seed=77)
    assert run(project, 1, one, force=True).attempt.exit_code == 0
    for number, content in enumerate(photos_of_the_first):
        (inbox / f"new-{number}.jpg").write_bytes(content)
    assert run(project, 2, one).attempt.exit_code == 6
    assert run(project, 2, one, "monitor.repeats=true", force=True).attempt.exit_code == 0


def test_the_delivery_of_a_failed_night_again_is_found(project: Path) -> None:
    photos(project, 0)
    (project / "in" / str(day(0)) / "broken.jpg").write_bytes(b"no picture")
    assert run(project, 0, "max_failed=0").attempt.outcome == "too_many_failed"
    for number, name in enumerate(sorted((project / "in" / str(day(0))).glob("0*.jpg"))):
        (project / "in" / str(day(1))).mkdir(exist_ok=True)
        shutil.copy(name, project / "in" / str(day(1)) / f"again-{number}.jpg")
    folder = project / "runs/toy" / str(day(1)) / "monitor"
    folder.mkdir(parents=True)
    (folder / ".toy.parquet.0123456789abcdef.new").touch()  # of a killed run
    ended = run(project, 1).attempt
    assert [path.name for path in folder.iterdir()] == ["toy.parquet"]
    assert (ended.outcome, ended.error.split(" (")[0]) == (
        "suspicious",
        f"30 of 30 images are copies of earlier ones, most of {day(0)}",
    )


def test_a_check_says_what_to_set_for_one_folder_for_all_nights(project: Path) -> None:
    (project / "in").mkdir()

    def hints(*settings: str) -> list[str]:
        lines = plan_night(load_job(project / "toy.toml", settings), day(0)).lines
        return [line for line in lines if line.startswith("note: ")]

    assert hints("images=in") == [f"note: {HINT}"]
    settled = (
        [],
        ["images=in", "monitor.repeats=true"],
        ["images=in", "mode=new"],
        ["images=in", "monitor.action=off"],
    )
    assert [hints(*settings) for settings in settled] == [[]] * 4


def test_a_failed_gate_does_not_hide_the_verdict(project: Path) -> None:
    """Exit code 4, and error, history, pages and all channels say both."""
    deliver_black(project / "in" / str(day(0)), 10)
    labels = [f"{number:03}.jpg,{'Red Tower' if number % 2 else 'Blue Lake'}" for number in range(10)]
    (project / "l.csv").write_text("\n".join(["image,label", *labels]))
    settings = ("evaluation.labels=l.csv", 'evaluation.gates=["top1 < 100%"]', "evaluation.resamples=200")
    ended = run(project, 0, *settings)
    assert (ended.attempt.outcome, ended.attempt.exit_code) == ("gate_failed", 4)
    said = (
        "; the night is suspicious, too: 10 of 10 images have one colour and nothing in it (usually none); 9 of 10 "
        "images are copies of others of this night (usually none); look at 000.jpg, 001.jpg, 002.jpg and 3 more"
    )
    assert ended.attempt.error.startswith("toy: ")
    assert ended.attempt.error.endswith(said)
    both = "gate failed and suspicious"
    assert describe_run(ended.record).startswith(f"Job toy, {day(0)}: {both} in ")
    history = table(nights([ended.record])).splitlines()
    assert (history[1].split("  ")[1], history[-1]) == (
        "gate failed and suspicious",
        "1 night: 1 gate failed and suspicious; none of them good.",
    )
    notification = compose(ended.record, ended.attempt)
    assert notification.title == f"toy, {day(0)}: {both}"
    assert ("monitor", "suspicious") in [(figure.name, figure.value) for figure in notification.figures]
    slack = json.dumps(slack_message(notification))
    assert f":warning: toy, {day(0)}: {both}" in slack
    assert said in slack
    (view,) = job_views(project / "runs", day(0))
    assert (view.kind, view.outcome, view.sentence) == ("failed", both, ended.attempt.error)
    assert [(night.sign, night.title) for night in view.strip] == [("✕", f"{day(0)}: {both}")]


def test_too_many_failed_images_do_not_hide_the_verdict(project: Path) -> None:
    deliver_black(project / "in" / str(day(0)), 10)
    (project / "in" / str(day(0)) / "text.jpg").write_text("no picture")
    error = run(project, 0, "max_failed=0", "monitor.action=warn").attempt.error
    assert "; the night is suspicious, too: 10 of 10 images have one colour" in error


def test_a_finding_that_is_newer_than_the_others_says_so() -> None:
    def found(what: str, since: date | None) -> Finding:
        return Finding(kind="pictures", what=what, message=f"{what}: 1, usually 2", strength=2.0, since=since)

    findings = (found("noise", day(1)), found("contrast", day(2)), found("brightness", None))
    verdict = NightVerdict(verdict="suspicious", judged_by="reference", images=50, findings=findings, since=day(1))
    assert explain([ModelRun(name="toy", partition="out", state="scored", monitor=verdict)]) == (
        f"since {day(1)}: noise: 1, usually 2; contrast: 1, usually 2 (since {day(2)}); brightness: 1, usually 2 (new)"
    )


def test_lasting_change_says_since_when_and_an_accepted_one_is_the_new_reference(six_nights: Path) -> None:
    for number in (6, 7, 8):
        photos(six_nights, number, light=0.35)
    first, second = run(six_nights, 6), run(six_nights, 7)
    assert first.record.models[0].monitor.since is None
    assert second.attempt.error.startswith(f"since {day(6)}: ")
    assert accept_night(six_nights / "runs/toy", day(7), reason="new lamp")[:-1] == (
        [day(6), day(7)],
        day(6),
        [day(6), day(7)],
        False,
        None,
        [],
    )
    records = read_runs(six_nights / "runs/toy")
    assert [record.good for record in records] == [True] * 8
    assert records[-1].accepted.model_dump(exclude={"accepted_at", "by"}) == {
        "reason": "new lamp",
        "since": day(6),
        "once": False,
    }
    third = run(six_nights, 8)
    assert (third.attempt.exit_code, reference_of(third.record)) == (0, [])
    again = run(six_nights, 7)
    assert (again.attempt.outcome, again.record.accepted) == ("ok", records[-1].accepted)
    older = run(six_nights, 5, force=True)
    assert reference_of(older.record) == [day(number) for number in range(5)]


def test_the_first_night_of_the_calendar_is_judged(project: Path) -> None:
    deliver_photos(project / "in" / str(date.min), 5, seed=1)
    assert run_night(load_job(project / "toy.toml"), date.min).attempt.exit_code == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("image,label\na.jpg,Red Tower\n", "there is no column 'camera' to slice by; there are no own columns"),
        ("image,camara,label\na.jpg,1,Red Tower\n",
         "there is no column 'camera' to slice by; the own columns are camara"),
        ("path,label\n", "{folder}/l.csv: has no column 'image', it has 'path', 'label'; labels need the columns "
         "'image' and 'label'"),
        ("image,camera,label\na.jpg,1,Red Tower\n", None),
    ],
)  # fmt: skip
def test_a_check_reads_the_header_of_the_labels(project: Path, labels: str, message: str | None) -> None:
    photos(project, 0)
    (project / "l.csv").write_text(labels)
    job = load_job(project / "toy.toml", ["evaluation.labels=l.csv", 'evaluation.by=["camera"]'])
    found = [str(problem) for problem in plan_night(job, day(0)).problems]
    assert found == ([message.format(folder=project)] if message else [])


def test_the_fault_of_nights_that_were_accepted_once_is_found_again(six_nights: Path) -> None:
    for number in (6, 7, 9):
        photos(six_nights, number, light=0.35)
        if number < 8:
            run(six_nights, number)
    photos(six_nights, 8)
    both = [day(6), day(7)]
    assert accept_night(six_nights / "runs/toy", day(7), once=True)[:-1] == (both, day(6), [], False, None, [])
    assert [read_run(six_nights / "runs/toy" / str(each)).good for each in both] == [True, True]
    with pytest.raises(UsageError, match=r"run\.json: accepted already on 20..-..-.. by [^,]+$"):
        accept_night(six_nights / "runs/toy", day(6), reason="another")
    assert reference_of(run(six_nights, 8).record) == [day(number) for number in range(6)]
    assert run(six_nights, 9).attempt.outcome == "suspicious"


@pytest.mark.parametrize("damage", ["junk", "half", "other columns", "folder"])
def test_a_night_with_damaged_figures_counts_as_one_without_figures(
    six_nights: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the file, and the reference goes on without the night."""
    path = six_nights / "runs/toy" / str(day(2)) / "monitor/toy.parquet"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "other columns":
        pq.write_table(pa.table({"image": ["a.jpg"]}), path)
    else:
        path.write_bytes(b"junk" if damage == "junk" else content[: len(content) // 2])
    photos(six_nights, 6)
    caplog.clear()
    result = run(six_nights, 6)
    assert (result.attempt.outcome, result.attempt.exit_code) == ("ok", 0)
    assert reference_of(result.record) == [day(number) for number in (0, 1, 3, 4, 5)]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{path}: cannot be read (")
    assert warning.endswith("); nothing is compared with the figures of this night")


@pytest.mark.parametrize("damage", [None, "junk", "half", "other arrays", "fewer figures", "encrypted", "fifo"])
def test_a_kept_reference_gives_the_same_verdict(
    six_nights: Path, damage: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If its file is damaged, the reference is fitted again."""
    photos(six_nights, 6, light=0.35)
    first = run(six_nights, 6).record.models[0].monitor
    kept = six_nights / "runs/toy/reference/toy.npz"
    content, fits = kept.read_bytes(), []
    if damage == "other arrays":
        np.savez(kept, key=np.load(kept)["key"])
    elif damage == "fewer figures":  # as kept by an earlier version
        arrays = dict(np.load(kept))
        shorter = {name: arrays[name][..., :-1] for name in ("night_figures", "between")}
        np.savez(kept, **(arrays | shorter))
    elif damage == "encrypted":  # one bit in the list of arrays says so
        at = content.rfind(b"PK\1\2") + 8
        kept.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage == "fifo":
        kept.unlink()
        os.mkfifo(kept)
    elif damage:
        kept.write_bytes(b"junk" if damage == "junk" else content[: len(content) // 2])
    fit = Reference.of
    monkeypatch.setattr(Reference, "of", lambda *arguments: fits.append(1) or fit(*arguments))
    assert run(six_nights, 6, force=True).record.models[0].monitor == first
    assert len(fits) == (1 if damage else 0)
    figures = six_nights / "runs/toy" / str(day(2)) / "monitor/toy.parquet"
    figures.write_bytes(figures.read_bytes())  # other figures need another reference
    left_behind = kept.with_name(f".{kept.name}.{'a' * 16}.new")
    left_behind.touch()  # of a killed run
    assert run(six_nights, 6, force=True).record.models[0].monitor == first
    assert len(fits) == (2 if damage else 1)
    assert not left_behind.exists()


def test_a_reference_that_cannot_be_kept_is_a_warning(six_nights: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(six_nights / "runs/toy/reference", ignore_errors=True)
    (six_nights / "runs/toy/reference").touch()
    photos(six_nights, 6)
    caplog.clear()
    assert run(six_nights, 6).attempt.exit_code == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.endswith("; the next night computes the reference again")


def test_other_pictures_need_another_acceptance(project: Path) -> None:
    """A forced run of the accepted pictures keeps the acceptance; one of other pictures is judged again."""
    deliver_black(project / "in" / str(day(0)), 10)
    assert run(project, 0).attempt.outcome == "suspicious"
    accept_night(project / "runs/toy", day(0), once=True)
    same = run(project, 0, force=True)
    assert (same.attempt.exit_code, same.record.accepted is None) == (0, False)
    shutil.rmtree(project / "in" / str(day(0)))
    deliver_black(project / "in" / str(day(0)), 12)
    other = run(project, 0, force=True)
    assert (other.attempt.outcome, other.attempt.exit_code, other.record.accepted) == ("suspicious", 6, None)
    assert other.record.warnings == (
        "toy: the predictions are not those that were accepted, so the night is judged again",
    )
    assert run(project, 0).attempt.exit_code == 6


def test_min_accuracy_that_is_not_checked_is_a_warning(project: Path) -> None:
    photos(project, 0)
    job, limit = project / "toy.toml", 'monitor.min_accuracy="70%"'
    why = "there is no estimator"
    plan = plan_night(load_job(job, [limit]), day(0))
    assert f"  warning: min_accuracy 70% is not checked: {why} {project}/toy.estimator.json" in plan.lines
    assert plan.problems == ()
    text = "toy: min_accuracy 70% is not checked: "
    absent = "the night has no estimate, for there was no estimator of this model beside it"
    assert run(project, 0, limit).record.warnings == (text + absent,)
    assert run(project, 0).record.warnings == ()
    off = 'monitor.action is "off"'
    assert run(project, 0, limit, "monitor.action=off", force=True).record.warnings == (text + off,)
    plan = plan_night(load_job(job, [limit, "monitor.action=off"]), day(0))
    assert f"  warning: min_accuracy 70% is not checked: {off}" in plan.lines


def test_a_night_of_strangers_is_suspicious_and_max_strangers_a_gate(project: Path) -> None:
    photos(project, 0)
    limit = 'monitor.max_strangers="50%"'
    assert run(project, 0, limit).record.warnings == (
        "toy: max_strangers 50% is not checked: the model has no known photos",
    )
    card = toy_card().model_copy(
        update={
            "features": 3,
            "known": KnownPhotos(images=30, labels_fingerprint="", distances=tuple(np.linspace(0.01, 0.1, 30))),
        }
    )
    write_toy_model(project / "toy.onnx", card)
    ended = run(project, 0, force=True)
    assert (ended.attempt.outcome, ended.attempt.exit_code) == ("suspicious", 6)
    verdict = ended.record.models[0].monitor
    assert verdict is not None
    assert verdict.strangers == 25 / 30
    assert [(finding.kind, finding.message) for finding in verdict.findings] == [
        ("strangers", "25 of 30 images are unlike the model's known photos (usually at most 5.0%)")
    ]
    assert "; strangers 83.3%; " in describe_model(ended.record.models[0])
    failed = run(project, 0, limit, force=True).attempt
    assert (failed.outcome, failed.exit_code) == ("gate_failed", 4)
    assert failed.error == (
        "toy: 83.3% of the images are strangers, more than max_strangers 50%; the night is suspicious, too: 25 of 30 "
        "images are unlike the model's known photos (usually at most 5.0%); "
        f"look at {first_few(ended.record.models[0].monitor.pictures)}"
    )


def test_only_suspicious_nights_can_be_accepted(six_nights: Path) -> None:
    path = six_nights / "runs/toy" / str(day(3)) / "run.json"
    with pytest.raises(UsageError, match=r"the night is not suspicious \(ok\)") as caught:
        accept_night(six_nights / "runs/toy", day(3))
    assert str(caught.value).startswith(str(path))
    with pytest.raises(UsageError, match="no such record"):
        accept_night(six_nights / "runs/toy", day(30))


def test_a_night_that_failed_for_another_reason_cannot_be_accepted(project: Path) -> None:
    folder = project / "in" / str(day(0))
    deliver_black(folder, 10)
    (folder / "text.jpg").write_text("no picture")
    assert run(project, 0, 'max_failed="0"').attempt.outcome == "too_many_failed"
    with pytest.raises(UsageError, match=r"the night failed \(too many failed: .+\); correct that and run it again"):
        accept_night(project / "runs/toy", day(0))
    assert run(project, 0, 'monitor.reference=["2026-10-01", "2026-10-14"]').attempt.outcome == "suspicious"
    assert accept_night(project / "runs/toy", day(0))[:-1] == ([day(0)], day(0), [], True, None, [])


def test_a_night_without_a_readable_image_cannot_be_accepted(six_nights: Path) -> None:
    folder = six_nights / "in" / str(day(6))
    folder.mkdir(parents=True)
    for number in range(10):
        (folder / f"{number}.jpg").write_text(f"no picture {number}")
    assert run(six_nights, 6).attempt.outcome == "too_many_failed"
    with pytest.raises(UsageError, match=r"the night failed \(too many failed: none of 10 images could be scored"):
        accept_night(six_nights / "runs/toy", day(6))


def test_a_small_night_does_not_join_the_reference(six_nights: Path) -> None:
    photos(six_nights, 6, count=1)
    photos(six_nights, 7)
    assert run(six_nights, 6).attempt.outcome == "suspicious"
    assert accept_night(six_nights / "runs/toy", day(6), once=True)[:-1] == ([day(6)], day(6), [], False, None, [])
    assert reference_of(run(six_nights, 7).record) == [day(number) for number in range(6)]


def test_warn_keeps_exit_code_0_and_the_night_out_of_the_reference(six_nights: Path) -> None:
    photos(six_nights, 6, light=0.35)
    photos(six_nights, 7)
    warned = run(six_nights, 6, "monitor.action=warn")
    assert (warned.attempt.outcome, warned.attempt.exit_code) == ("ok", 0)
    assert [warning.split(":")[0] for warning in warned.record.warnings] == ["suspicious"]
    assert reference_of(run(six_nights, 7).record) == [day(number) for number in range(6)]


def test_action_off_judges_nothing(project: Path) -> None:
    deliver_black(project / "in" / str(day(0)), 10)
    result = run(project, 0, "monitor.action=off")
    assert (result.attempt.exit_code, result.record.models[0].monitor) == (0, None)


def test_kept_night_keeps_its_verdict(six_nights: Path) -> None:
    photos(six_nights, 6, light=0.35)
    first, again = run(six_nights, 6), run(six_nights, 6)
    assert again.record.models[0].state == "kept"
    assert again.attempt.outcome == "suspicious"
    assert again.record.models[0].monitor == first.record.models[0].monitor


def test_named_nights_are_the_reference(six_nights: Path) -> None:
    photos(six_nights, 6)
    result = run(six_nights, 6, f'monitor.reference=["{day(0)}", "{day(4)}"]')
    assert reference_of(result.record) == [day(number) for number in range(5)]
    with pytest.raises(UsageError, match="the first night of reference is after the last one"):
        load_job(six_nights / "toy.toml", [f'monitor.reference=["{day(4)}", "{day(0)}"]'])


def test_labelled_photos_are_the_reference(project: Path) -> None:
    """From the first night on, and without the model of the job, only pictures are compared."""
    deliver_photos(project / "labelled", 120, seed=99)
    setting = "monitor.reference=labelled.parquet"
    photos(project, 0)
    plan = plan_night(load_job(project / "toy.toml", [setting]), day(0))
    missing = "labelled.parquet: does not exist; score the labelled photos first, and write the predictions there"
    assert [str(problem) for problem in plan.problems] == [f"{project}/{missing}"]
    assert run(project, 0, setting).attempt.error == f"{project}/{missing}"
    score(project / "labelled", project / "labelled.parquet", ScoreOptions(model=project / "toy.onnx", device="cpu"))
    photos(project, 1, light=0.35)
    good, dark = run(project, 0, setting), run(project, 1, setting)
    assert (good.attempt.outcome, dark.attempt.outcome) == ("ok", "suspicious")
    verdict = dark.record.models[0].monitor
    assert (verdict.judged_by, verdict.reference, verdict.reference_photos) == ("reference", (), 120)
    assert "  monitor: suspicious, compared with 120 labelled photos" in describe_run(dark.record)
    accepted = accept_night(project / "runs/toy", day(1))
    assert (accepted.reference, accepted.fixed) == ([], True)


def test_a_folder_without_labelled_photos_and_too_few_of_them_are_refused(project: Path) -> None:
    photos(project, 0)
    with pytest.raises(UsageError, match=r"in: is a folder without predictions$"):
        read_photos(project / "in")
    score(project / "in", project / "few.parquet", ScoreOptions(model=project / "toy.onnx", device="cpu"))
    with pytest.raises(
        UsageError, match=r"few\.parquet: 30 images scored, fewer than 100, are no reference for nights"
    ):
        read_photos(project / "few.parquet")


@pytest.mark.parametrize("budget", ["0.001", "1000"])
def test_a_budget_that_was_not_measured_is_refused(project: Path, budget: str) -> None:
    with pytest.raises(UsageError, match=r"monitor\.false_alarms"):
        load_job(project / "toy.toml", [f"monitor.false_alarms={budget}"])


def test_history_and_notification_show_what_is_unusual(six_nights: Path) -> None:
    photos(six_nights, 6, light=0.35)
    run(six_nights, 6)
    row = nights(read_runs(six_nights / "runs/toy"))[-1]
    assert (row.outcome, row.monitor, row.accepted) == ("suspicious", "suspicious", False)
    assert len(row.unusual) >= 1
    assert json.loads(row.model_dump_json())["unusual"] == list(row.unusual)
    recorder = Recorder(load_job(six_nights / "toy.toml"), day(6), day(6))
    recorder.open()
    pictures = choose_pictures(recorder)
    assert len(pictures) == 6
    verdict = recorder.models["toy"].monitor
    shown = verdict.pictures_show.replace("_", " ")
    assert [picture.caption for picture in pictures] == [f"{name}: {shown}" for name in verdict.pictures]
    assert f"  pictures that show {shown}: {', '.join(verdict.pictures)}" in describe_verdict(
        recorder.models["toy"], accepted=False
    )


def test_a_usage_error_leaves_a_good_night_as_it_was(project: Path) -> None:
    photos(project, 0)
    (project / "empty.csv").write_text("image,label\n")
    good = run(project, 0).record
    labels = "evaluation.labels=empty.csv"
    refused = run(project, 0, labels)
    assert (refused.attempt.outcome, refused.attempt.exit_code, refused.attempt.refused) == ("failed", 2, True)
    stored = read_run(project / "runs/toy" / str(day(0)))
    assert stored == good.model_copy(update={"attempts": (*good.attempts, refused.attempt)})
    assert (stored.outcome, stored.exit_code, stored.good) == ("ok", 0, True)
    forced = run(project, 0, labels, force=True)  # the predictions are new, and nothing says that they are good
    assert (forced.record.outcome, forced.attempt.refused) == ("failed", False)


def test_the_message_about_a_low_estimate_has_its_interval_also_from_zero() -> None:
    accuracy = AccuracyEstimate(value=0.04, low=0.0, high=0.1)
    verdict = NightVerdict(verdict="ok", judged_by="reference", images=50, accuracy=accuracy)
    night = ModelRun(name="toy", partition="out", state="scored", monitor=verdict)
    broken = ["estimated accuracy 4.0% (0.0 to 10.0%) is below min_accuracy 70%"]
    assert broken_limits(MonitorTable(min_accuracy="70%"), night) == broken
    assert broken_limits(MonitorTable(min_accuracy="4%"), night) == []
