"""--json prints one document and nothing else to stdout, as its schema in schemas/ says."""

import json
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from click.testing import CliRunner
from commands import batchland
from evaluation_data import Row, write_label_folders, write_predictions
from jsonschema import Draft202012Validator

import batchland.models.session as session_module
from batchland.cli.main import main

SCHEMAS = Path(__file__).parents[2] / "schemas"
FOLDERS = ("00.Red_Tower", "01.Green_Hill")
NAMES = tuple(f"{folder}/{number}.jpg" for folder in FOLDERS for number in range(4))


def document(schema: str, *arguments: object, exit_code: int = 0, stderr: str | None = None) -> dict:
    """The JSON that the command prints, validated with its schema; stderr: if given, what it prints there."""
    result = batchland(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    assert stderr in (None, result.stderr)
    content = json.loads(result.stdout)
    Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text())).validate(content)
    return content


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """before.parquet (all right), after.parquet (7 of 8 right) and labels/ in the working folder."""
    monkeypatch.chdir(tmp_path)
    answers = [(0.8, 0.2)] * 4 + [(0.3, 0.7)] * 4
    write_predictions(Path("before.parquet"), FOLDERS, [Row(*each) for each in zip(NAMES, answers, strict=True)])
    answers[-1] = (0.8, 0.2)
    write_predictions(Path("after.parquet"), FOLDERS, [Row(*each) for each in zip(NAMES, answers, strict=True)])
    write_label_folders(Path("labels"), NAMES)


def test_score_and_merge_print_the_manifest(tmp_path: Path, toy_model: Path, colour_folders: Path) -> None:
    (colour_folders / "broken.jpg").touch()
    arguments = ("score", colour_folders, "--model", toy_model, "--device", "cpu")
    printed = document("manifest", *arguments, "--out", tmp_path / "p.parquet")
    assert printed == json.loads((tmp_path / "p.manifest.json").read_text())
    document("manifest", *arguments, "--out", tmp_path / "shards", "--shard", "0/1")
    again = document("manifest", *arguments, "--out", tmp_path / "shards", "--shard", "0/1")
    assert again["counts"] == printed["counts"]
    merged = document("manifest", "merge", tmp_path / "shards", "--out", tmp_path / "m.parquet", "--max-failed", "0",
                      exit_code=3)  # fmt: skip
    assert merged == json.loads((tmp_path / "m.manifest.json").read_text())


def test_evaluate_prints_reports_comparison_and_gates(predictions: None) -> None:
    one = document("evaluate_result", "evaluate", "after.parquet", "-l", "labels", "-o", "one", "--fail-if",
                   "top1 < 0.9", exit_code=4, stderr="")  # fmt: skip
    assert one["reports"] == [{"folder": "one", "summary": json.loads(Path("one/summary.json").read_text())}]
    assert one["comparison"] is None
    assert one["gates"] == [
        {"gate": "top1 < 0.9", "failed": True, "value": 0.875, "message": "top1 is 0.875 (fails if top1 < 0.9)"}
    ]
    assert (one["verdict"]["text"], one["verdict"]["changes"]) == ("Fails the gate.", None)
    again = document(
        "evaluate_result", "evaluate", "before.parquet", "-l", "labels", "-o", "again", "--baseline", "one"
    )
    assert again["verdict"]["kind"] == "passed"
    changes = again["verdict"]["changes"]
    assert (changes["baseline"], changes["paired"], changes["worse"], changes["before"]) == ("one", True, False, 0.875)
    two = document("evaluate_result", "evaluate", "before.parquet", "after.parquet", "-l", "labels", "-o", "two")
    assert [report["folder"] for report in two["reports"]] == ["two/before", "two/after"]
    assert two["reports"][1]["summary"] == json.loads(Path("two/after/summary.json").read_text())
    assert two["comparison"] == json.loads(Path("two/summary.json").read_text())
    assert two["verdict"]["changes"]["baseline"] == "before"
    compared = document("comparison_summary", "compare", "two/before", "two/after", "-o", "compared")
    assert compared == json.loads(Path("compared/summary.json").read_text())


@pytest.mark.parametrize("command", [("evaluate", "before.parquet", "-l", "labels"), ("compare", "a", "b")])
def test_json_and_markdown_exclude_each_other(predictions: None, command: tuple[str, ...]) -> None:
    error = document("error", *command, "-o", "out", "--markdown", exit_code=2)
    assert error["message"] == "give --markdown or --json, not both"


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [
        ("run absent.toml", 2, "absent.toml: cannot be read (No such file or directory); give a job file"),
        ("job check absent.toml", 2, "absent.toml: cannot be read (No such file or directory); give a job file"),
        ("score", 2, "Missing option '-o' / '--out'."),
        ("score photos --out p.parquet", 2, "photos: does not exist; give a folder of images"),
        ("plan photos --out plan", 2, "photos: does not exist; give a folder of images"),
        ("merge shards --out m.parquet", 2, "shards: cannot be opened (No such file or directory); give the --out of "
         "`batchland score --shard`"),
        ("evaluate p.parquet -l . -o report", 2, "p.parquet: does not exist; give predictions that `batchland score` "
         "wrote"),
        ("compare a b -o changes", 2, "a: holds no summary.json; give a folder that `batchland evaluate` wrote"),
        ("doctor --colour", 2, "No such option '--colour'."),
        ("doctor --job a.toml --device cpu", 2, "the job file sets the models and the device; leave out --model and "
         "--device"),
        ("inspect absent.onnx", 5, "absent.onnx: cannot be read (No such file or directory); give an exported or "
         "adopted model"),
        ("models list", 2, "models: is not a folder, so there is no registry; `batchland models add` makes one"),
    ],
)  # fmt: skip
def test_an_error_is_a_document_on_stdout_alone(
    tmp_path: Path, toy_model: Path, monkeypatch: pytest.MonkeyPatch, command: str, exit_code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHLAND_MODEL", str(toy_model))
    result = batchland(*command.split(), "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "schema_version": 1, "kind": "batchland.error", "exit_code": exit_code, "message": message
    }  # fmt: skip
    assert result.exit_code == exit_code


def test_a_bug_is_a_document_on_stdout_besides_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "open_session", lambda *_: 1 / 0)
    result = CliRunner().invoke(main, ["inspect", "toy.onnx", "--json"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads(result.stdout) == {
        "schema_version": 1, "kind": "batchland.error", "exit_code": 1,
        "message": "a bug; its traceback is on standard error",
    }  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, toy_model: Path, colour_folders: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(
        'images = "labelled"\nmodel = "toy.onnx"\noutput = "out"\ndevice = "cpu"\nmonitor = {action = "off"}\n'
    )
    return path


def test_run_prints_the_records_of_its_nights(job: Path, tmp_path: Path) -> None:
    result = document("run_result", "run", job, "--from", "2026-11-22", "--to", "2026-11-23")
    records = [json.loads((tmp_path / f"runs/toy/2026-11-{day}/run.json").read_text()) for day in (22, 23)]
    assert (result["exit_code"], result["nights"]) == (0, records)
    failed = document("run_result", "--quiet", "run", job, "--set", "images=none", exit_code=66)
    assert (failed["exit_code"], failed["nights"][0]["attempts"][0]["outcome"]) == (66, "missing_input")
    refused = document("error", "run", job, "--dry-run", exit_code=2, stderr="")
    assert refused["message"] == "--json prints the records of runs; give `batchland job check --json` for a plan"


def test_job_check_prints_steps_and_problems(job: Path, tmp_path: Path) -> None:
    fine = document("job_check", "job", "check", job)
    assert (fine["ok"], fine["problems"], fine["job_file"]) == (True, [], str(job))
    assert fine["steps"][1] == f"model toy: {tmp_path}/toy.onnx"
    bad = document("job_check", "job", "check", job, "--set", "images=none", exit_code=66)
    assert (bad["ok"], [problem["exit_code"] for problem in bad["problems"]]) == (False, [66])


def test_doctor_prints_all_checks(job: Path) -> None:
    found = document("doctor", "doctor", "--job", job)
    assert found["ok"]
    assert [check["name"] for check in found["checks"]][-3:] == ["disk, records", "lock", "last night"]
    bad = document("doctor", "doctor", "--model", "absent.onnx", exit_code=1)
    assert (bad["ok"], bad["checks"][-1]["state"]) == (False, "fail")


def run(job: Path, *flags: str, date: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchland", *flags, "run", str(job), "--date", date]
    return forks.run(command)


def test_a_result_is_on_stdout_and_not_on_stderr(job: Path) -> None:
    result = run(job, date="2026-11-23")
    assert result.stdout.count("toy: scored, 9 images") == 1
    assert "scored" not in result.stderr
    assert "job toy, 2026-11-23: begins" in result.stderr


def test_quiet_logs_warnings_and_errors_only(job: Path) -> None:
    result = run(job, "--quiet", date="2026-11-23")
    assert (result.returncode, result.stderr, result.stdout.count("toy: scored, 9 images")) == (0, "", 1)
    job.write_text(job.read_text().replace("labelled", "none"))
    failed = run(job, "--quiet", date="2026-11-24")
    assert (failed.returncode, failed.stderr.count("does not exist")) == (66, 1)
    assert batchland("--quiet", "--verbose", "doctor").exit_code == 2


def test_quiet_may_stand_behind_the_command(job: Path, tmp_path: Path) -> None:
    document("run_result", "run", job, "--date", "2026-11-23", "--quiet", stderr="")
    assert batchland("doctor", "--quiet", "--verbose").exit_code == 2
    named = batchland("score", "--model", tmp_path / "toy.onnx", "--out", tmp_path / "p.parquet", "--", "--quiet")
    last = named.stderr.splitlines()[-1]
    assert (named.exit_code, last) == (2, "batchland: --quiet: does not exist; give a folder of images")
