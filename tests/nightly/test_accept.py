"""Accept suspicious nights, withdraw that, and which nights count as good then."""

from datetime import date, datetime
from pathlib import Path

import commands
import pytest
from nights import like_others, mix, model_run, night, unlike_others

import batchland.nightly.accept as accept_module
from batchland.errors import UsageError
from batchland.monitoring.schema import NightVerdict
from batchland.nightly.accept import accept_night, withdraw_acceptance
from batchland.nightly.good_nights import last_good, reference_nights, reference_start
from batchland.nightly.history import nights, table
from batchland.nightly.record_files import read_run, read_runs, update_run
from batchland.nightly.run_record import Outcome, RunRecord
from batchland.trend.findings import headline
from batchland.trend.measure import measure
from batchland.trend.overview import job_views

TODAY = date(2024, 10, 20)
STEADY = mix({"red": 50, "green": 30, "blue": 20}, [0.3] * 50 + [0.9] * 50)


def day(number: int) -> date:
    return date(2024, 10, number)


def keep(runs: Path, number: int, verdict: NightVerdict, outcome: Outcome = "ok") -> RunRecord:
    run = model_run(monitor=verdict, mix=STEADY)
    error = "too dark" if outcome == "suspicious" else None
    return update_run(runs / "job" / str(day(number)), night(day(number), run, outcome=outcome, error=error, job="job"))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Six good nights; then three dark ones."""
    for number in range(1, 7):
        keep(tmp_path, number, like_others())
    keep(tmp_path, 7, unlike_others(), "suspicious")
    for number in (8, 9):
        keep(tmp_path, number, unlike_others(since=day(7)), "suspicious")
    return tmp_path


def comparable(runs: Path) -> list[int]:
    return [record.date.day for record in reference_nights(read_runs(runs / "job"), model_run())]


def good_by_all(runs: Path) -> list[tuple[int, date | None]]:
    """The number of good nights and the last one, as history, trend, page over jobs and records count them."""
    records = read_runs(runs / "job")
    rows = nights(records)
    trend = measure(records).table.to_pylist()
    (view,) = job_views(runs, TODAY)
    good = last_good(records)
    assert f"{sum(row['good'] for row in trend)} of {len(rows)} nights ended well." in headline(trend)
    totals = table(rows, TODAY).splitlines()[-1]
    assert f"the last good one is {good.date}." in totals if good else "none of them good" in totals
    return [
        (sum(row.good for row in rows), max((row.date for row in rows if row.good), default=None)),
        (sum(row["good"] for row in trend), max((row["date"] for row in trend if row["good"]), default=None)),
        (sum(each.kind == "passed" for each in view.strip), view.last_good),
        (sum(record.good for record in records), good.date if good else None),
    ]


def test_history_trend_and_page_agree_on_accepted_nights(runs: Path) -> None:
    assert good_by_all(runs) == [(6, day(6))] * 4
    accept_night(runs / "job", day(8), once=True)
    assert good_by_all(runs) == [(8, day(8))] * 4
    assert table(nights(read_runs(runs / "job")), TODAY).splitlines()[-1] == (
        "9 nights: 6 ok, 2 suspicious, accepted, 1 suspicious; the last good one is 2024-10-08."
    )
    withdraw_acceptance(runs / "job", day(7))
    assert good_by_all(runs) == [(6, day(6))] * 4


def test_a_withdrawal_brings_the_reference_back(runs: Path) -> None:
    """Nights that were judged by the accepted ones count no longer, and reruns that were ok by it are suspicious."""
    accept_night(runs / "job", day(9), reason="new camera")
    accepted = read_run(runs / "job" / str(day(9)))
    assert reference_start(read_runs(runs / "job"), TODAY) == day(7)
    for number in (10, 11):
        keep(runs, number, like_others().model_copy(update={"reference_start": day(7)}))
    again = accepted.attempts[0].model_copy(update={"started_at": "2024-10-11T09:00:00+00:00", "outcome": "ok",
                                                    "exit_code": 0, "error": None})  # fmt: skip
    update_run(runs / "job" / str(day(9)), accepted.model_copy(update={"attempts": (again,)}))
    assert comparable(runs) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    withdrawn = withdraw_acceptance(runs / "job", day(8), reason="a mistake")
    assert withdrawn == ([day(7), day(8), day(9)], day(7), False, None, [day(10), day(11)])
    assert reference_start(read_runs(runs / "job"), TODAY) == date.min
    assert comparable(runs) == [1, 2, 3, 4, 5, 6]
    shown = nights(read_runs(runs / "job"))
    assert [row.date.day for row in shown if row.reference_withdrawn] == [10, 11]
    assert table(shown).count(": was compared with nights that are no longer accepted") == 2
    record = read_run(runs / "job" / str(day(9)))
    (withdrawal,) = record.withdrawn
    assert (record.accepted, withdrawal.acceptance, withdrawal.reason) == (None, accepted.accepted, "a mistake")
    assert (record.outcome, record.exit_code, record.good) == ("suspicious", 6, False)
    when = withdrawal.withdrawn_at[:10]
    assert record.error == f"the night is suspicious: {withdrawal.by} withdrew its acceptance on {when} (a mistake)"
    with pytest.raises(UsageError, match=r"run\.json: the night is not accepted, so there is nothing to withdraw$"):
        withdraw_acceptance(runs / "job", day(9))
    accept_night(runs / "job", day(9))
    assert comparable(runs) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]


def test_two_acceptances_of_one_change_are_withdrawn_together(runs: Path) -> None:
    """Else the second one would keep the reference of a change that a person does not accept."""
    for number in (8, 9):
        accept_night(runs / "job", day(number), reason=f"night {number}")
    keep(runs, 10, like_others().model_copy(update={"reference_start": day(7)}))
    assert withdraw_acceptance(runs / "job", day(8)) == ([day(7), day(8), day(9)], day(7), False, None, [day(10)])
    assert reference_start(read_runs(runs / "job"), day(11)) == date.min
    assert comparable(runs) == [1, 2, 3, 4, 5, 6]
    reasons = [read_run(runs / "job" / str(day(each))).withdrawn[-1].acceptance.reason for each in (7, 8, 9)]
    assert reasons == ["night 8", "night 8", "night 9"]


def test_single_nights_are_withdrawn_one_by_one(runs: Path) -> None:
    for number in (7, 8):
        accept_night(runs / "job", day(number), once=True, reason=f"night {number}")
    assert withdraw_acceptance(runs / "job", day(8)).nights == [day(8)]
    assert [read_run(runs / "job" / str(day(number))).good for number in (7, 8)] == [True, False]
    assert comparable(runs) == [1, 2, 3, 4, 5, 6]


def test_a_withdrawal_says_that_a_later_change_still_holds(runs: Path) -> None:
    accept_night(runs / "job", day(7))
    keep(runs, 12, unlike_others(), "suspicious")
    accept_night(runs / "job", day(12))
    result = commands.batchland("accept", "job", "--date", day(7), "--runs", runs, "--withdraw")
    assert (result.exit_code, result.stdout) == (
        0,
        "Withdrawn: job job, 2024-10-07, suspicious again; the reference still begins with 2024-10-12, a later change "
        "that is accepted.\n",
    )


def test_an_acceptance_says_that_a_later_change_still_holds(runs: Path) -> None:
    keep(runs, 12, unlike_others(), "suspicious")
    accept_night(runs / "job", day(12))
    result = commands.batchland("accept", "job", "--date", day(7), "--runs", runs)
    assert (
        "; the reference of the coming nights still begins with 2024-10-12, a later accepted change. " in result.stdout
    )


def test_the_records_are_not_read_again_after_they_are_written(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else storage that fails then makes an acceptance look undone, and a rerun says that it is there already."""

    def once(folder: Path) -> list[RunRecord]:
        monkeypatch.setattr(accept_module, "read_runs", fails)
        return read_runs(folder)

    def fails(folder: Path) -> list[RunRecord]:
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(accept_module, "read_runs", once)
    assert accept_night(runs / "job", day(9)).reference == [day(7), day(8), day(9)]
    monkeypatch.setattr(accept_module, "read_runs", once)
    assert withdraw_acceptance(runs / "job", day(9)).nights == [day(7), day(8), day(9)]


def test_a_suspicious_night_of_another_change_is_not_accepted_along(runs: Path) -> None:
    """Night 8 has its own fault between nights of a drift that began with night 7."""
    keep(runs, 8, unlike_others(), "suspicious")
    accepted = accept_night(runs / "job", day(9), once=True)
    assert (accepted.nights, accepted.open) == ([day(7), day(9)], [])
    assert [read_run(runs / "job" / str(day(number))).good for number in (7, 8, 9)] == [True, False, True]
    assert comparable(runs) == [1, 2, 3, 4, 5, 6]


def test_a_reference_begins_after_nights_that_were_accepted_once(runs: Path) -> None:
    accept_night(runs / "job", day(8), once=True)
    result = commands.batchland("accept", "job", "--date", day(9), "--runs", runs)
    assert "2024-10-09; a new reference begins with 2024-10-09, without earlier nights;" in result.stdout, result.stdout


def test_the_command_says_what_follows(runs: Path) -> None:
    def said(*options: str, number: int = 8) -> tuple[int, str]:
        result = commands.batchland("accept", "job", "--date", day(number), "--runs", runs, *options)
        return result.exit_code, result.stdout or result.stderr.splitlines()[-1]

    assert said() == (
        0,
        "Accepted: job job, 2024-10-07 to 2024-10-08, 2 nights; a new reference begins with 2024-10-07, without "
        "earlier nights; until it has 5 nights, only exact rules apply. Still suspicious by the same change: "
        "2024-10-09. If nothing has changed and only this night is odd, withdraw this and accept it once: "
        f"`batchland accept job --date 2024-10-08 --runs {runs} --withdraw && batchland accept job --date 2024-10-08 "
        f"--runs {runs} --once`.\n"
        "  2024-10-07: brightness: mean 0.161, usually 0.42 to 0.479\n"
        "  2024-10-08: since 2024-10-07: brightness: mean 0.161, usually 0.42 to 0.479\n",
    )
    for number in range(10, 14):
        keep(runs, number, like_others().model_copy(update={"reference_start": day(7)}))
    assert said("--withdraw") == (
        0,
        "Withdrawn: job job, 2024-10-07 to 2024-10-08, 2 nights, suspicious again, and the reference is again that of "
        "before 2024-10-07. Nights judged since then are no longer part of a reference: 2024-10-10, 2024-10-11, "
        "2024-10-12 and 1 more; run them again with --force to judge them by the old one.\n",
    )
    assert said("--once") == (
        0,
        "Accepted: job job, 2024-10-07 to 2024-10-08, 2 nights; the nights are good, but do not join the reference; a "
        "later night with the same fault is suspicious again. Still suspicious by the same change: 2024-10-09.\n"
        "  2024-10-07: brightness: mean 0.161, usually 0.42 to 0.479\n"
        "  2024-10-08: since 2024-10-07: brightness: mean 0.161, usually 0.42 to 0.479\n",
    )
    assert said("--withdraw", number=7) == (
        0,
        "Withdrawn: job job, 2024-10-07 to 2024-10-08, 2 nights, suspicious again.\n",
    )
    assert said("--once", "--withdraw") == (2, "Error: --once and --withdraw exclude each other.")


def test_acceptance_withdrawal_and_removal_change_the_metrics(runs: Path, tmp_path: Path) -> None:
    """Without them, alerts about an accepted night would go on until the next night."""
    path, ends = tmp_path / "job.prom", {}
    for record in read_runs(runs / "job"):
        update_run(runs / "job" / str(record.date), record.model_copy(update={"config": {"metrics": str(path)}}))
        ends[datetime.fromisoformat(record.deciding.finished_at or "").timestamp()] = record.date.day
    found = []
    for command in (("accept", "job", "--once"), ("accept", "job", "--withdraw"), ("job", "remove-record", "job")):
        assert commands.batchland(*command, "--date", day(9), "--runs", runs).exit_code == 0
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        values = {line.partition("{")[0].removeprefix("batchland_"): float(line.split()[-1]) for line in lines}
        times = [ends[values[f"{name}_timestamp_seconds"]] for name in ("finished", "success")]
        found.append((*times, values["exit_code"], values["suspicious"]))
    assert found == [(9, 9, 0, 0), (9, 6, 6, 1), (8, 6, 6, 1)]  # newest night, last good one, exit code, suspicious


def test_the_metrics_of_a_job_without_records_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    record = keep(tmp_path, 1, like_others()).model_copy(update={"config": {"metrics": str(path)}})
    update_run(tmp_path / "job" / str(day(1)), record)
    path.write_text("of the night that is removed")
    assert commands.batchland("job", "remove-record", "job", "--date", day(1), "--runs", tmp_path).exit_code == 0
    assert not path.exists()


def test_a_night_of_which_the_job_only_warns_is_not_good(runs: Path) -> None:
    keep(runs, 10, unlike_others(), "ok")
    assert good_by_all(runs) == [(6, day(6))] * 4
    assert comparable(runs) == [1, 2, 3, 4, 5, 6]
    last = measure(read_runs(runs / "job")).table.to_pylist()[-1]
    assert (last["reference"], last["compared_with"]) == (False, [day(number) for number in range(1, 7)])


def test_the_trend_compares_nights_of_an_accepted_change_with_each_other(runs: Path) -> None:
    accept_night(runs / "job", day(9))
    compared = {row["date"].day: [each.day for each in row["compared_with"]]
                for row in measure(read_runs(runs / "job")).table.to_pylist()}  # fmt: skip
    assert (compared[6], compared[7], compared[9]) == ([1, 2, 3, 4, 5], [8, 9], [7, 8])
