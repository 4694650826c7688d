"""`batchland run` and `batchland job check`: what they print, and the exit code for cron."""

import re
import sys
from datetime import date, timedelta

import commands
import forks
import onnx
import pytest
from toys import COLOURS, picture


@pytest.fixture
def project(tmp_path, toy_model):
    (tmp_path / "toy.toml").write_text(
        'images = "in/{date}"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "off"}\n'
    )
    for day in ("2024-11-21", "2024-11-23"):
        for folder, colour in COLOURS.items():
            (tmp_path / "in" / day / folder).mkdir(parents=True)
            (tmp_path / "in" / day / folder / "1.jpg").write_bytes(picture(colour))
    return tmp_path


def batchland(*arguments):
    result = commands.batchland(*arguments)
    return result.exit_code, re.sub(r"\d+\.\d (?=s|images)", "N ", result.stdout), result.stderr


def test_a_night(project):
    code, said, _ = batchland("run", project / "toy.toml", "--date", "2024-11-23")
    assert (code, said) == (
        0,
        "Job toy, 2024-11-23: ok in N s.\n"
        f"toy: scored, 3 images, 3 ok, 0 failed, N images/s on cpu; {project}/out/date=2024-11-23\n",
    )
    settings = ("--set", "max_failed=0", "--set", "evaluation={labels='in/{date}', gates=['top1 > 10%']}")
    (project / "in" / "2024-11-23" / "broken.jpg").touch()
    for name in ("more.zip", "most.zip", "notes.txt"):
        (project / "in" / "2024-11-23" / name).touch()
    code, said, _ = batchland("run", project / "toy.toml", "--date", "2024-11-23", "--force", *settings)
    assert code == 3
    assert said == (
        "Job toy, 2024-11-23: too many failed in N s.\n"
        "toy: replaced, 4 images, 3 ok, 1 failed (empty 1), 3 ignored (.txt 1, .zip 2), N images/s on cpu; top-1 "
        f"accuracy 100.0% [43.9%, 100.0%]; {project}/out/date=2024-11-23\n"
        "  gate failed: top1 is 100% (fails if top1 > 10%)\n"
        f"  report: {project}/runs/toy/2024-11-23/report/toy/report.html\n"
    )


def test_without_a_date_the_night_is_yesterday(project):
    yesterday = date.today() - timedelta(days=1)
    code, said, _ = batchland("run", project / "toy.toml", "--set", "images=in/never-{date}")
    assert (code, said) == (66, f"Job toy, {yesterday}: missing input in N s.\n")


@pytest.mark.parametrize(
    ("setting", "code", "expected"),
    [
        ("images=in/never", 66, "does not exist; is the delivery late, or "),
        ("model=none.onnx", 5, "none.onnx: cannot be read "),
        ("output=in/{date}", 2, "only images and labels may contain {date}"),
        (
            "date=2026-02-30",
            2,
            "\"date\" = '2026-02-30': should be 'today' or 'yesterday'; for one night, use "
            "`batchland run` with --date\n",
        ),
        ("output=in/2024-11-23/out", 2, 'lies inside the images to score; give job toy another "output"'),
    ],
)
def test_an_error_is_printed_once_on_stderr(project, setting, code, expected):
    command = [sys.executable, "-m", "batchland", "run", project / "toy.toml", "--date", "2024-11-23"]
    result = forks.run([*command, "--set", setting])
    assert (result.returncode, result.stderr.count(expected), result.stdout.count(expected)) == (code, 1, 0)


def test_the_reason_of_a_skipped_night_is_printed(project):
    code, said, _ = batchland("run", project / "toy.toml", "--set", "images=in/never", "--set", "on_missing=skip")
    assert code == 0
    assert said.splitlines()[1].startswith(f"{project}/in/never: does not exist; is the delivery late, or ")


def test_a_backfill_runs_every_night_and_ends_with_the_first_bad_code(project):
    code, said, _ = batchland("run", project / "toy.toml", "--from", "2024-11-21", "--to", "2024-11-23")
    assert [line for line in said.splitlines() if line.startswith("Job ")] == [
        "Job toy, 2024-11-21: ok in N s.",
        "Job toy, 2024-11-22: missing input in N s.",
        "Job toy, 2024-11-23: ok in N s.",
    ]
    assert code == 66


def test_a_dry_run_does_nothing(project):
    before = sorted(project.rglob("*"))
    code, said, _ = batchland("run", project / "toy.toml", "--from", "2024-11-22", "--to", "2024-11-23", "--dry-run")
    assert code == 0
    wrong = f"is the delivery late, or `images` in {project}/toy.toml wrong?"
    assert [line for line in said.splitlines() if line.startswith("  ")] == [
        f"  fail: {project}/in/2024-11-22: does not exist; {wrong}",
        f"  score {project}/out/date=2024-11-23: 3 images of {project}/in/2024-11-23",
    ]
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--from", "2024-11-23"], "give --from and --to together, and without --date"),
        (["--from", "2024-11-22", "--to", "2024-11-23", "--date", "2024-11-23"], "give --from and --to together, and "),
        (["--from", "2024-11-23", "--to", "2024-11-22"], "--to 2024-11-22 is before --from 2024-11-23"),
        (["--set", "batchsize=2"], 'unknown key "batchsize" (did you mean "batch_size"?)'),
    ],
)
def test_contradicting_options(project, options, expected):
    code, said, errors = batchland("run", project / "toy.toml", *options)
    assert (code, said) == (2, "")
    assert expected in errors


def test_a_job_file_is_checked(project):
    code, said, _ = batchland("job", "check", project / "toy.toml", "--set", "images=in/2024-11-23")
    assert code == 0
    assert said.splitlines()[0] == f"{project}/toy.toml: fine"
    assert said.splitlines()[1].startswith(f"job toy of {project}/toy.toml, night ")
    (project / "toy.toml").write_text('image = "in"\n')
    code, said, errors = batchland("job", "check", project / "toy.toml")
    assert (code, said) == (2, "")
    assert errors == (
        f'batchland: {project}/toy.toml: key "images" is missing; unknown key "image" (did you mean "images"?)\n'
    )


@pytest.mark.parametrize(
    ("settings", "code", "expected"),
    [
        (["model=none.onnx"], 5, ["{project}/none.onnx: cannot be read (No such file or directory); "]),
        (["model=cardless.onnx"], 5, ["{project}/cardless.onnx: has no batchland card "]),
        (["output=in/2024-11-23/out"], 2, ["{project}/in/2024-11-23/out/date={night}: lies inside the images "]),
        (["evaluation.labels=labels.csv"], 2, ["{project}/labels.csv: no labels there; "]),
        (["images=in/{date}"], 66, ["{project}/in/{night}: does not exist; is the delivery late, or "]),
        (
            ["images=in/{date}", "model=none.onnx"],
            5,
            ["{project}/none.onnx: cannot be read ", "{project}/in/{night}: does not exist; "],
        ),
    ],
)
def test_a_check_fails_with_the_code_of_the_first_problem(project, settings, code, expected):
    model = onnx.load(project / "toy.onnx")
    del model.metadata_props[:]
    onnx.save(model, project / "cardless.onnx")
    settings = [f"--set={setting}" for setting in ("images=in/2024-11-23", *settings)]
    found, said, _ = batchland("job", "check", project / "toy.toml", *settings)
    lines, night = said.splitlines(), date.today() - timedelta(days=1)
    problems = [line.removeprefix("  fail: ") for line in lines if line.startswith("  fail: ")]
    assert (found, len(problems)) == (code, len(expected))
    assert all(
        line.startswith(start.format(project=project, night=night))
        for line, start in zip(problems, expected, strict=True)
    )
    number = f"{len(expected)} problem{'s' if len(expected) > 1 else ''}"
    assert lines[0] == f"{project}/toy.toml: a run would fail now, {number} (see fail: below)"


def test_a_mistyped_date_is_rejected_and_its_record_can_be_removed(project, monkeypatch):
    monkeypatch.chdir(project)
    today = date.today()
    message = f"batchland: night 2999-01-01: is after today, {today} by this machine's clock; --future runs it anyway"
    for options in (["--date", "2999-01-01"], ["--from", "2024-11-23", "--to", "2999-01-01"]):
        assert batchland("run", project / "toy.toml", *options) == (2, "", f"{message}\n")
    assert not (project / "runs").exists()
    settings = ("--set", "images=in/2024-11-23", "--set", "output=other")
    assert batchland("run", project / "toy.toml", "--date", "2999-01-01", "--future", *settings)[0] == 0
    assert batchland("run", project / "toy.toml", "--date", "2024-11-23")[0] == 0
    assert (project / "runs" / "toy" / "latest").resolve().name == "2024-11-23"
    assert batchland("job", "remove-record", "toy", "--date", "2999-01-01") == (
        0, "Removed: job toy, 2999-01-01; the record is now runs/toy/2999-01-01/run.json.removed.\n", "",
    )  # fmt: skip
    assert batchland("job", "remove-record", "toy", "--date", "2999-01-01") == (
        2, "",
        "batchland: runs/toy/2999-01-01/run.json: no such record; the job has records from 2024-11-23 to 2024-11-23\n",
    )  # fmt: skip


@pytest.mark.parametrize("command", [("history",), ("trend", "--out", "t.html"), ("accept", "--date", "2024-11-23"),
                                     ("job", "remove-record", "--date", "2024-11-23")])  # fmt: skip
def test_a_path_is_not_the_name_of_a_job(command):
    code, _, errors = batchland(*command, "../other/toy")
    assert code == 2
    assert errors.endswith(": '../other/toy' is not the name of a job; --runs says where its records are.\n")
