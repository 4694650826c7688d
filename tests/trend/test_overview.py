"""The page over all jobs: order, sentences, links, nights without a record; quiet and readable in a real browser."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from browser import assert_readable, assert_structured, needs_browser, opened
from commands import batchland
from nights import accepted, like_others, model_run, night, unlike_others

from batchland.errors import UsageError
from batchland.nightly.record_files import point_to_latest, update_run
from batchland.nightly.run_record import Outcome
from batchland.trend.overview import ModelLine, StripNight, job_views, overview_headline
from batchland.trend.write import write_night_pages, write_overview

TODAY = date(2026, 11, 29)
ERRORS = {"missing_input": "/in/2026-11-28: does not exist; wait for it", "gate_failed": "gate failed: top1 is 0.8"}


def record(runs: Path, job: str, ago: int, outcome: Outcome = "ok", right: int | None = 80) -> Path:
    """A record `ago` days before today, with a log and, where there are labels, a report."""
    day = TODAY - timedelta(days=ago)
    folder = runs / job / str(day)
    run = model_run(right=right)
    if run.evaluation:
        report = folder / "report" / "toy"
        report.mkdir(parents=True)
        (report / "report.html").touch()
        run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"report": str(report)})})
    models = () if outcome == "missing_input" else (run,)
    update_run(folder, night(day, *models, outcome=outcome, error=ERRORS.get(outcome), job=job))
    (folder / "log.jsonl").touch()
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A good job, one without its delivery, and a weekly one that was skipped."""
    runs = tmp_path / "runs"
    for ago in (5, 4, 2, 1):
        record(runs, "good", ago)
    record(runs, "bad # 1", 3)
    record(runs, "bad # 1", 2, "gate_failed")
    record(runs, "bad # 1", 1, "missing_input")
    for ago in (22, 15, 8):
        record(runs, "weekly", ago, "skipped", right=None)
    return runs


def test_jobs_with_problems_come_first(runs):
    views = job_views(runs, TODAY)
    assert [(view.name, view.kind, view.outcome, view.sentence) for view in views] == [
        ("bad # 1", "failed", "missing input", "/in/2026-11-28: does not exist; wait for it"),
        ("weekly", "open", "skipped", "There was nothing to score."),
        ("good", "passed", "ok", "Ended well."),
    ]
    assert [(view.step, view.last_good and view.last_good.day) for view in views] == [(1, 26), (7, None), (1, 28)]
    assert overview_headline(views) == "1 of 3 jobs ended well. Failed: bad # 1. Not done: weekly."
    assert overview_headline([]) == "No job has run yet."


def test_suspicious_and_accepted_nights(tmp_path):
    """A dark delivery for two nights; one job's were accepted, and one job only warns."""
    first, last = TODAY - timedelta(days=2), TODAY - timedelta(days=1)
    error = f"since {first}: brightness: mean 0.161, usually 0.42 to 0.479; look at its pictures, and accept it"
    good = model_run(monitor=like_others(0.7))
    dark, still = model_run(monitor=unlike_others()), model_run(monitor=unlike_others(since=first))
    for job in ("new", "lasting", "accepted", "warned"):
        outcome: Outcome = "ok" if job == "warned" else "suspicious"
        earlier = night(first, good if job == "new" else dark, outcome="ok" if job == "new" else outcome, job=job)
        later = night(last, dark if job == "new" else still, outcome=outcome, error=error, job=job)
        if job == "warned":
            later = night(last, still, job=job)
        for each in (earlier, later):
            update_run(tmp_path / job / str(each.date), accepted(each, first) if job == "accepted" else each)
    views = job_views(tmp_path, TODAY)
    assert overview_headline(views) == (
        "1 of 4 jobs ended well. Suspicious: lasting since 2026-11-27, new since 2026-11-28, warned since 2026-11-27."
    )
    assert [(view.name, view.kind, view.outcome, view.sentence, view.last_good) for view in views] == [
        ("lasting", "warning", "suspicious", error, None),
        ("new", "warning", "suspicious", error, first),
        (
            "warned",
            "warning",
            "ok and suspicious",
            "since 2026-11-27: brightness: mean 0.161, usually 0.42 to 0.479; the job only warns of suspicious nights.",
            None,
        ),
        (
            "accepted",
            "passed",
            "suspicious, accepted",
            "Accepted by ann on 2026-11-29: new camera. What was unusual: since 2026-11-27: brightness: mean 0.161, "
            "usually 0.42 to 0.479.",
            last,
        ),
    ]
    assert [[(each.sign, each.title) for each in view.strip] for view in views] == [
        [("!", "2026-11-27: suspicious"), ("!", "2026-11-28: suspicious since 2026-11-27")],
        [("✓", "2026-11-27: ok"), ("!", "2026-11-28: suspicious")],
        [("!", "2026-11-27: ok and suspicious"), ("!", "2026-11-28: ok and suspicious since 2026-11-27")],
        [("◇", "2026-11-27: suspicious, accepted"), ("◇", "2026-11-28: suspicious since 2026-11-27, accepted")],
    ]


def test_starts_that_found_the_night_done_are_no_attempts(tmp_path):
    for job, before in {
        "later": ("missing_input", "killed", "ok"),
        "twice": ("ok", "ok"),
        "redone": ("ok", "killed"),
        "once": (),
    }.items():
        update_run(tmp_path / job / str(TODAY), night(TODAY, model_run(), before=before, job=job))
    assert {view.name: view.sentence for view in job_views(tmp_path, TODAY)} == {
        "later": "Ended well, after 3 attempts.",
        "twice": "Ended well.",
        "redone": "Ended well, after 3 attempts.",
        "once": "Ended well.",
    }


def test_an_estimate_is_shown_beside_its_model(tmp_path):
    update_run(tmp_path / "job" / str(TODAY), night(TODAY, model_run(monitor=like_others(0.7)), job="job"))
    (view,) = job_views(tmp_path, TODAY)
    assert view.models == (
        ModelLine("toy", ("100 images", "0 failed", "estimated accuracy 70.0% (66.0 to 74.0%)"), None),
    )


def test_links_are_relative_and_only_to_files_that_exist(runs):
    (runs / "bad # 1" / "2026-11-26" / "report" / "toy" / "report.html").unlink()
    bad, _, good = job_views(runs, TODAY)
    assert bad.models == ()
    assert good.models == (
        ModelLine(
            "toy",
            ("100 images", "0 failed", "accuracy 80.0% (71.1 to 86.7%)"),
            "good/2026-11-28/report/toy/report.html",
        ),
    )
    assert bad.links == (
        ("record", "bad%20%23%201/2026-11-28/run.json"),
        ("log", "bad%20%23%201/2026-11-28/log.jsonl"),
    )
    assert bad.strip == (
        StripNight("passed", "✓", "2026-11-26: ok", "bad%20%23%201/2026-11-26/run.json"),
        StripNight("failed", "✕", "2026-11-27: gate failed", "bad%20%23%201/2026-11-27/report/toy/report.html"),
        StripNight("failed", "✕", "2026-11-28: missing input", "bad%20%23%201/2026-11-28/run.json"),
    )


def test_a_daily_job_shows_days_without_a_record(runs):
    good = job_views(runs, TODAY)[-1]
    assert [(each.title, each.kind) for each in good.strip] == [
        ("2026-11-24: ok", "passed"),
        ("2026-11-25: ok", "passed"),
        ("2026-11-26: no record", None),
        ("2026-11-27: ok", "passed"),
        ("2026-11-28: ok", "passed"),
    ]


def test_nights_in_the_future_and_other_folders_are_left_out(runs):
    record(runs, "good", -400, "gate_failed")
    (runs / "not-a-job").mkdir()
    (runs / "a-file").touch()
    (runs / "good" / "latest").symlink_to("2026-11-28")
    assert [(view.name, view.outcome) for view in job_views(runs, TODAY)][1:] == [("weekly", "skipped"), ("good", "ok")]


def test_jobs_that_end_together_are_all_on_the_page(tmp_path):
    def end(number: int) -> None:
        record(tmp_path, f"job-{number}", 1)
        write_night_pages(tmp_path / f"job-{number}", TODAY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(end, range(8)))
    page = (tmp_path / "index.html").read_text()
    assert "8 of 8 jobs ended well." in page
    assert [f'href="job-{number}/trend.html"' in page for number in range(8)].count(True) == 8
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_files_that_killed_processes_left_are_removed(tmp_path, monkeypatch):
    record(tmp_path, "job", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            point_to_latest(tmp_path / "job", TODAY)
    left = [tmp_path / f".index.html.{'a' * 16}.new", *(tmp_path / "job").glob(".latest*")]
    left[0].touch()
    for path in left:
        os.utime(path, (0, 0), follow_symlinks=False)
    write_night_pages(tmp_path / "job", TODAY)
    assert len(left) == 2
    assert not any(map(os.path.lexists, left))


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    record(tmp_path, "job", 1)
    (tmp_path / "index.html").mkdir()
    write_night_pages(tmp_path / "job", TODAY)
    assert [each.getMessage() for each in caplog.records] == [
        f"{tmp_path}/index.html: cannot be written (Is a directory); write elsewhere"
    ]
    assert (tmp_path / "job" / "trend.html").exists()


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = batchland("index")
    printed = "batchland: runs: there is no such folder; give the folder with the records of the jobs\n"
    assert (result.exit_code, result.stderr, list(tmp_path.iterdir())) == (2, printed, [])
    Path("runs").mkdir()
    result = batchland("index")
    assert (result.exit_code, result.stdout) == (0, "Jobs: runs/index.html.\n")
    assert "No job has run yet." in Path("runs/index.html").read_text()


def test_an_acceptance_is_on_both_pages_at_once(tmp_path):
    day = date(2024, 10, 1)
    dark = night(day, model_run(monitor=unlike_others()), outcome="suspicious", error="brightness", job="job")
    update_run(tmp_path / "job" / str(day), dark)
    result = batchland("accept", "job", "--date", str(day), "--runs", str(tmp_path))
    assert (result.exit_code, result.stdout) == (
        0,
        "Accepted: job job, 2024-10-01; a new reference begins with 2024-10-01, without earlier nights; until it "
        "has 5 nights, only exact rules apply. If nothing has changed and only this night is odd, withdraw this and "
        f"accept it once: `batchland accept job --date 2024-10-01 --runs {tmp_path} --withdraw && batchland accept job "
        f"--date 2024-10-01 --runs {tmp_path} --once`.\n",
    )
    again = batchland("accept", "job", "--date", str(day), "--once", "--runs", str(tmp_path))
    assert (again.exit_code, again.stdout) == (2, "")
    assert "run.json: accepted already on " in again.stderr
    assert "1 of 1 job ended well." in (tmp_path / "index.html").read_text()
    assert '<span class="verdict passed">suspicious, accepted</span>' in (tmp_path / "job" / "trend.html").read_text()


def test_a_page_of_another_program_is_not_replaced(runs):
    (runs / "index.html").write_text("<html>a home page</html>")
    with pytest.raises(UsageError) as caught:
        write_overview(runs, TODAY)
    expected = f"{runs}/index.html: is not an earlier page over all jobs; move it to another place"
    assert str(caught.value) == expected
    assert (runs / "index.html").read_text() == "<html>a home page</html>"


@needs_browser
def test_the_page_is_quiet_structured_and_readable(browser, runs):
    record(runs, "<script>window.hacked=1<script>".replace("/", ""), 1)
    page = write_overview(runs, TODAY)
    with opened(browser, page, offline=True) as found:
        assert_structured(found.page)
        assert_readable(found)
        assert found.page.evaluate("window.hacked") is None
        marked = found.page.locator("article:first-of-type .strip li").all_inner_texts()
        assert marked == ["✓", "✕", "✕"]


@needs_browser
def test_a_click_opens_the_report_of_a_night(browser, runs):
    page = write_overview(runs, TODAY)
    with opened(browser, page) as found:
        found.page.get_by_role("link", name="2026-11-27: gate failed").click()
        assert found.page.url.endswith("/bad%20%23%201/2026-11-27/report/toy/report.html")
        found.requested.pop()


@needs_browser
@pytest.mark.parametrize(("hours", "notice"), [(20, ""), (40, "Overdue: good.")])
def test_an_old_page_says_which_jobs_are_overdue(browser, tmp_path, hours, notice):
    """The last night of `good` ended at two o'clock of the 29th and one minute."""
    for ago in (3, 2, 1):
        record(tmp_path, "good", ago)
    record(tmp_path, "new", 1)
    page = write_overview(tmp_path, TODAY)
    with opened(browser, page, own=True) as found:
        found.page.clock.set_fixed_time(datetime(2026, 11, 29, 2, tzinfo=UTC) + timedelta(hours=hours))
        found.page.reload()
        shown = found.page.locator("#overdue").inner_text()
        assert shown.partition(" No night")[0] == notice
        found.requested.pop()
