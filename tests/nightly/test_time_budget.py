"""`finish_by`: the moment it means, the estimate of the end, the warning, and the stop."""

import time
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from itertools import count

import pytest
from job_files import JOB, deliver
from nights import model_run, night
from post_server import post_server
from toys import picture

from batchland.errors import UsageError
from batchland.nightly.job import load_job
from batchland.nightly.record_files import read_run
from batchland.nightly.runner import run_night
from batchland.nightly.time_budget import ESTIMATE_AFTER, EndEstimator, TimeBudget, later, next_time, rest_of_night
from batchland.scoring.account import Progress
from batchland.scoring.engines import local as local_engine
from batchland.scoring.listing import open_listing
from batchland.scoring.options import ScoreOptions

NIGHT = date(2024, 11, 23)


def local(*moment: int) -> datetime:
    return datetime(*moment).astimezone()


@pytest.fixture
def berlin(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("clock", "now", "expected", "hours"),
    [
        ((6, 0), (2026, 11, 24, 3, 30), "2026-11-24T06:00:00+01:00", 2.5),
        ((6, 0), (2026, 11, 24, 6, 0), "2026-11-25T06:00:00+01:00", 24),
        ((6, 0), (2026, 11, 23, 22, 0), "2026-11-24T06:00:00+01:00", 8),
        ((6, 0), (2026, 3, 28, 23, 0), "2026-03-29T06:00:00+02:00", 6),  # summer time begins: an hour less
        ((6, 0), (2026, 10, 24, 23, 0), "2026-10-25T06:00:00+01:00", 8),  # it ends: an hour more
        ((2, 30), (2026, 3, 29, 0, 30), "2026-03-29T03:30:00+02:00", 2),  # no clock shows 2:30
        ((2, 30), (2026, 10, 25, 0, 30), "2026-10-25T02:30:00+02:00", 2),  # clocks show it twice
    ],
)
def test_finish_by_is_the_next_time_that_clocks_show_it(berlin, clock, now, expected, hours):
    found = next_time(clock_time(*clock), local(*now))
    assert (found.isoformat(), found - local(*now)) == (expected, timedelta(hours=hours))


def test_an_estimated_end_is_in_the_time_that_clocks_show_then(berlin):
    assert later(local(2026, 3, 29, 1, 30), 3600).isoformat() == "2026-03-29T03:30:00+02:00"
    assert later(local(2026, 10, 25, 1, 30), 2 * 3600).isoformat() == "2026-10-25T02:30:00+01:00"


def test_the_earlier_of_time_limit_and_finish_by_stops_a_run(tmp_path):
    (tmp_path / "toy.toml").write_text(JOB)

    def left(*settings):
        return TimeBudget(load_job(tmp_path / "toy.toml", settings), local(2026, 11, 24, 3, 30)).left()

    assert left() is None
    assert left("finish_by='06:00'") == pytest.approx(2.5 * 3600, abs=1)
    assert left("finish_by='06:00'", "time_limit='1h'") == pytest.approx(3600, abs=1)
    assert left("finish_by='04:00'", "time_limit='1h'") == pytest.approx(1800, abs=1)
    assert left("finish_by=04:00:00") == pytest.approx(1800, abs=1)  # TOML has times of its own
    for wrong in ("'24:00'", "'6:00'", "'noon'", "6", "6.5", "true", "2026-11-24T06:00:00"):
        with pytest.raises(UsageError, match='is not a time of the day; write it like "06:00"'):
            left(f"finish_by={wrong}")


@pytest.mark.parametrize(
    ("warm_up", "resumed", "rates"),
    [
        (0.5, 0, [20.0]),
        (15.0, 0, [20.0]),  # the model opens slowly
        (2.0, 3000, [20.0]),  # the night was interrupted after 3000 images
        (2.0, 0, [19.0, 21.0]),  # the speed changes from batch to batch
        (70.0, 0, [20.0]),  # the first batch comes after the minute
    ],
)
def test_the_estimate_after_a_minute_is_right_within_ten_percent(tmp_path, warm_up, resumed, rates):
    """A night of 6000 images and then a second model, by a simulated clock."""
    images, batch, listing = 6000, 32, _Listed(6000)
    now = warm_up
    reports = []
    rest = rest_of_night_of(tmp_path, second_rate=40.0)
    with EndEstimator(listing, rest, reports.append, begin=0.0, clock=lambda: now) as estimator:
        estimator._counting.join()
        done, number, made_at = resumed, 0, None
        while done < images:
            now += batch / rates[number % len(rates)]
            done, number = min(images, done + batch), number + 1
            estimator.update(Progress(done, 0, resumed))
            made_at = made_at or (now if reports else None)
    end = now + 6000 / 40.0 + 12.0
    first = reports[0]
    said = datetime.fromisoformat(first.end) - datetime.fromisoformat(first.made_at)
    assert made_at < max(60.0, warm_up + 12) + 2
    assert made_at + said.total_seconds() == pytest.approx(end, rel=0.03)
    assert (first.images, first.images_per_second) == (6000, pytest.approx(20.0, rel=0.05))


class _Listed:
    """A listing of a given number of images."""

    def __init__(self, images: int) -> None:
        self.images = images

    def second_walk(self):
        return iter(range(self.images))


def rest_of_night_of(tmp_path, second_rate):
    """A job of two models; its last good night took 12 seconds besides scoring."""
    (tmp_path / "two.toml").write_text('images = "in"\n[models]\na = "a.onnx"\nb = "b.onnx"\n')
    runs = (model_run("a", rate=20.0, listed=2000), model_run("b", rate=second_rate, listed=2000))
    return rest_of_night(load_job(tmp_path / "two.toml"), "a", [night(NIGHT, *runs, seconds=100.0 + 50.0 + 12.0)])


def test_the_first_night_assumes_that_later_models_are_as_fast_as_the_first(tmp_path):
    (tmp_path / "two.toml").write_text('images = "in"\n[models]\na = "a.onnx"\nb = "b.onnx"\n')
    assert rest_of_night(load_job(tmp_path / "two.toml"), "a", [])(100, 0.5) == 50
    assert rest_of_night(load_job(tmp_path / "two.toml"), "b", [])(100, 0.5) == 0


def test_a_listing_counts_its_images(tmp_path):
    deliver(tmp_path, NIGHT)
    reports, ticks = [], iter(range(100))
    listing = open_listing(tmp_path / "in", ScoreOptions())
    with EndEstimator(
        listing, lambda images, each: 0.0, reports.append, begin=0.0, after=1.0, clock=lambda: next(ticks)
    ) as estimator:
        estimator._counting.join()
        for done in (2, 4, 6):
            estimator.update(Progress(done, 0, 0))
    assert [(each.images, each.images_done, each.images_per_second) for each in reports] == [(9, 4, 2.0), (9, 6, 2.0)]


@pytest.fixture
def slow_project(tmp_path, toy_model):
    """Nights of 120 images in batches of one."""
    (tmp_path / "toy.toml").write_text(JOB)
    deliver(tmp_path, NIGHT, per_class=40)
    return tmp_path


def finish_in(seconds: float) -> str:
    """`finish_by` has whole minutes, so the tests run a night that begins a given number of seconds before one."""
    return (datetime.now() + timedelta(seconds=seconds)).strftime("%H:%M")


def test_a_night_that_will_be_late_warns_records_and_notifies(slow_project):
    with post_server() as server:
        settings = ["batch_size=1", "part_size=60", f"notify.webhook='{server.url}'", f"finish_by='{finish_in(120)}'"]
        job = load_job(slow_project / "toy.toml", settings)
        in_time = run_night(job, NIGHT, estimate_after=0.01).record
        assert (in_time.outcome, in_time.warnings, server.got) == ("ok", (), [])
        assert in_time.estimate.images == 120
        # As if each night had an evaluation of a day, so that finish_by cannot be kept.
        path = slow_project / "runs/toy/2024-11-22/run.json"
        path.parent.mkdir()
        long = night(date(2024, 11, 22), model_run("toy"), seconds=86_400.0, job="toy")
        path.write_text(long.model_dump_json())
        record, attempt = run_night(job, NIGHT, force=True, estimate_after=0.01)
    assert attempt.outcome == "ok"
    (warning,) = record.warnings
    assert warning.startswith("the night would end at about ")
    assert ", so it will be stopped at " in warning
    assert read_run(job.folder / str(NIGHT)).estimate == record.estimate
    ((_, document),) = server.got
    assert (document["title"], document["outcome"], document["exit_code"], document["good"]) == (
        "toy, 2024-11-23: will not end in time",
        "running",
        None,
        False,
    )
    assert f"Warning: {warning}." in document["summary"]


def test_a_run_stops_at_finish_by_and_the_next_one_resumes(slow_project, monkeypatch):
    for limit in ("0.1s", "1s", "4s"):  # a busy machine may not finish a part sooner
        job = load_job(slow_project / "toy.toml", ["batch_size=1", "part_size=1", f"time_limit={limit}"])
        record, attempt = run_night(job, NIGHT)
        assert (attempt.outcome, attempt.exit_code, record.models[0].state) == ("time_limit", 143, "unfinished")
        assert attempt.error.endswith(f", at its time limit of {job.time_limit}; a rerun resumes")
        if any((slow_project / "out").rglob("part-*.parquet")):
            break
    budget = TimeBudget(load_job(slow_project / "toy.toml", ["finish_by='06:00'"]), local(2026, 11, 24, 3, 30))
    assert str(budget.over()) == "job toy: stopped, at finish_by 06:00; a rerun resumes"
    again = run_night(load_job(slow_project / "toy.toml", ["batch_size=1", "part_size=1"]), NIGHT)
    assert (again.attempt.outcome, again.record.models[0].state) == ("ok", "resumed")


@pytest.mark.slow  # waits for the next whole minute
def test_a_run_really_stops_when_the_clock_shows_finish_by(slow_project):
    large = picture(size=(2000, 2000), kind="PNG")
    for number in range(6000):
        (slow_project / "in" / str(NIGHT) / f"{number}.png").write_bytes(large)
    at = datetime.now() + timedelta(seconds=3 if datetime.now().second < 55 else 63)
    at = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    settings = ["batch_size=1", "num_workers=1", f"finish_by='{at:%H:%M}'"]
    attempt = run_night(load_job(slow_project / "toy.toml", settings), NIGHT).attempt
    assert (attempt.outcome, attempt.exit_code) == ("time_limit", 143)
    assert attempt.error.endswith(f", at finish_by {at:%H:%M}; a rerun resumes")
    assert 0 <= (datetime.now() - at).total_seconds() < 10


@pytest.mark.slow  # two and a half minutes
def test_the_end_of_a_real_night_is_estimated_within_ten_percent_after_a_minute(slow_project, monkeypatch):
    """A night of 120 images, one per second, after a night of three."""
    deliver(slow_project, NIGHT - timedelta(days=1), per_class=1)
    score_batch, numbers, starts = local_engine.score_batch, count(), []

    def paced(*arguments):
        number = next(numbers)
        starts.append(time.monotonic())
        time.sleep(max(0.0, starts[0] + number - time.monotonic()))
        return score_batch(*arguments)

    settings = ["batch_size=1", "part_size=60", "intra_op_threads=2", f"finish_by='{finish_in(3600)}'"]
    job = load_job(slow_project / "toy.toml", settings)
    assert run_night(job, NIGHT - timedelta(days=1)).record.outcome == "ok"
    monkeypatch.setattr(local_engine, "score_batch", paced)
    begin = datetime.now().astimezone()
    record = run_night(job, NIGHT).record
    seconds = (datetime.now().astimezone() - begin).total_seconds()
    assert (record.outcome, record.warnings, record.estimate.images) == ("ok", (), 120)
    made_at, end = (datetime.fromisoformat(text) - begin for text in (record.estimate.made_at, record.estimate.end))
    assert made_at.total_seconds() == pytest.approx(ESTIMATE_AFTER, abs=5)
    assert end.total_seconds() == pytest.approx(seconds, rel=0.1)
