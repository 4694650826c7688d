"""cron/: every example agrees with the code, and the tools that use the examples accept them."""

import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml
from commands import batchland
from nights import model_run, night

from batchland.cli.main import main
from batchland.errors import (
    GateFailedError,
    MissingInputError,
    ModelError,
    SuspiciousNightError,
    TooManyFailedError,
    UsageError,
)
from batchland.nightly.crontab import Entry, kept_environment, render
from batchland.nightly.notifications.metrics import write_metrics
from batchland.nightly.run_record import GateVerdict
from batchland.scoring.options import Shard

FOLDER = Path(__file__).parents[2] / "cron"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


def assert_our_command(words: list[str]) -> None:
    """That the program takes these arguments."""
    program, name, *arguments = words
    assert program == "/opt/batchland/.venv/bin/batchland"
    main.commands[name].make_context(name, arguments)


def test_the_crontab_is_what_cron_install_would_write(monkeypatch):
    for name in ("BATCHLAND_MODEL", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TZ"):
        monkeypatch.delenv(name, raising=False)
    program, home = Path("/opt/batchland/.venv/bin"), Path("/srv/batchland")
    entry = Entry(
        job="nightly",
        command=(str(program / "python"), "-m", "batchland", "run", str(home / "jobs" / "nightly.toml")),
        folder=home,
        log=home / "runs" / "nightly" / "cron.log",
        environment=kept_environment(program),
    )
    text = (FOLDER / "crontab").read_text()
    comment, _, lines = text.partition("# >>> ")
    assert "# >>> " + lines == render(entry)
    assert all(line.startswith("#") for line in comment.splitlines())


def test_the_service_runs_a_job_and_may_write_where_it_writes():
    text = (FOLDER / "batchland@.service").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert_our_command(settings["ExecStart"].split())
    assert settings["WorkingDirectory"] == settings["ReadWritePaths"] == settings["RequiresMountsFor"]
    assert (settings["Type"], settings["ProtectSystem"], settings["NoNewPrivileges"]) == ("oneshot", "strict", "yes")
    timer = (FOLDER / "batchland@.timer").read_text()
    assert {"Persistent=true", "OnCalendar=*-*-* 03:30:00", "WantedBy=timers.target"} <= set(timer.splitlines())


@needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path):
    program = tmp_path / "batchland"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("batchland@.service", "batchland@.timer"):
        text = (FOLDER / name).read_text().replace("/opt/batchland/.venv/bin/batchland", str(program))
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / "batchland@nightly.service"), str(tmp_path / "batchland@nightly.timer")]
    result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs("systemd-analyze")
@pytest.mark.parametrize(("zone", "summer"), [("Europe/Berlin", "2027-03-28"), ("America/New_York", "2027-03-14")])
def test_the_night_in_which_summer_begins_has_its_run(zone, summer):
    (when,) = re.findall(r"^OnCalendar=(.*)$", (FOLDER / "batchland@.timer").read_text(), re.MULTILINE)
    command = ["systemd-analyze", "calendar", f"{when} {zone}", "--base-time=2027-03-10 12:00:00", "--iterations=25"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"TZ": zone})
    assert summer in result.stdout


@needs("systemd-analyze")
def test_the_service_has_a_good_security_rating_of_systemd():
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(FOLDER / "batchland@.service")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-300:] + result.stderr


def test_the_pod_never_overlaps_and_does_not_retry_permanent_errors():
    job = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())
    assert (job["kind"], job["spec"]["concurrencyPolicy"]) == ("CronJob", "Forbid")
    spec = job["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert_our_command(container["command"])
    failing = spec["podFailurePolicy"]["rules"][0]
    errors = (UsageError, TooManyFailedError, GateFailedError, ModelError, SuspiciousNightError)
    codes = [1, *(error.exit_code for error in errors)]  # 1: a bug
    assert failing == {
        "action": "FailJob",
        "onExitCodes": {"containerName": container["name"], "operator": "In", "values": codes},
    }
    assert pod["restartPolicy"] == "Never"  # as podFailurePolicy demands
    zone = {variable["name"]: variable["value"] for variable in container["env"]}["TZ"]
    assert zone == job["spec"]["timeZone"]


def test_every_pod_scores_its_shard_and_another_job_merges_them():
    shards, merge = yaml.safe_load_all((FOLDER / "kubernetes-shards.yaml").read_text())
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in (shards, merge)]
    count = shards["spec"]["completions"]
    for index in range(count):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in containers[0]["command"]]
        assert_our_command(words)
        assert str(Shard.parse(words[-1])) == f"{index}/{count}"
    assert_our_command(containers[1]["command"])
    assert containers[1]["command"][2] == containers[0]["command"][words.index("--out") + 1]
    failing = [job["spec"]["podFailurePolicy"]["rules"][0] for job in (shards, merge)]
    assert [(rule["action"], rule["onExitCodes"]["values"]) for rule in failing] == [
        ("FailIndex", [error.exit_code for error in (UsageError, ModelError)]),
        ("FailJob", [error.exit_code for error in (UsageError, TooManyFailedError, MissingInputError)]),
    ]
    for job, container in zip((shards, merge), containers, strict=True):
        assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # as podFailurePolicy demands
    assert shards["spec"]["completionMode"] == "Indexed"
    assert merge["spec"]["suspend"] is True


def test_the_tasks_of_a_slurm_array_and_the_merge_after_them(tmp_path, monkeypatch, photos, toy_model):
    """The script with other paths and a smaller number of tasks."""
    text = (FOLDER / "slurm-array.sh").read_text()
    (last,) = re.findall(r"^#SBATCH --array=0-([0-9]+)$", text, re.MULTILINE)
    (count,) = re.findall(r"^SHARDS=([0-9]+)$", text, re.MULTILINE)
    assert int(last) + 1 == int(count)
    assert (FOLDER / "slurm-array.sh").stat().st_mode & 0o111
    program = tmp_path / "batchland"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m batchland "$@"\n')
    program.chmod(0o755)
    (tmp_path / "models").mkdir()
    shutil.copy(toy_model, tmp_path / "models" / "transfer.onnx")
    script = tmp_path / "slurm-array.sh"
    text = text.replace(f"SHARDS={count}", "SHARDS=2").replace("/opt/batchland/.venv/bin/batchland", str(program))
    script.write_text(text.replace("cd /srv/batchland", f"cd {tmp_path}"))
    for task in (0, 1):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "1"}
        subprocess.run(["bash", str(script)], env=environment, check=True, capture_output=True)
    (merging,) = re.findall(r'--wrap "(.*)"$', script.read_text(), re.MULTILINE)
    subprocess.run(merging.split(), cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    assert batchland("score", "photos", "--out", "one.parquet").exit_code == 0
    assert (tmp_path / "predictions" / "all.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


@needs("shellcheck")
def test_shellcheck_finds_nothing_in_the_script():
    result = subprocess.run(["shellcheck", str(FOLDER / "slurm-array.sh")], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_alerts_ask_for_metrics_that_are_written(tmp_path):
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
    gate = GateVerdict(gate="top1 < 0.5", verdict="passed", value=0.8, message="fine")
    day = date(2026, 11, 23)
    write_metrics(tmp_path / "x.prom", [night(day, model_run(failed=1, right=80, gates=(gate,)))], day)
    text = (tmp_path / "x.prom").read_text()
    written = {name: set(re.findall(r'(\w+)="', labels)) for name, labels in re.findall(r"^(\w+)\{(.*)\}", text, re.M)}
    asked = {name for rule in rules for name in re.findall(r"batchland_\w+", rule["expr"])}
    assert asked <= set(written)
    for rule in rules:
        for name, label in re.findall(r"(batchland_\w+)\{(\w+)=", rule["expr"]):
            assert label in written[name]
        labels = set().union(*(written[name] for name in re.findall(r"batchland_\w+", rule["expr"])))
        printed = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert printed <= labels | {"file", "instance"}, rule["alert"]


@needs("promtool")
def test_prometheus_accepts_the_alerts():
    result = subprocess.run(["promtool", "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, text=True)
    assert (result.returncode, "SUCCESS: 9 rules found" in result.stdout) == (0, True), result.stderr


@needs("logrotate")
def test_logrotate_moves_a_log_away_and_the_next_night_writes_a_new_one(tmp_path):
    log = tmp_path / "runs" / "nightly" / "cron.log"
    log.parent.mkdir(parents=True)
    log.write_text("a night\n")
    owner = f"su {log.owner()} {log.group()}"
    text = (FOLDER / "logrotate.conf").read_text().replace("/srv/batchland", str(tmp_path))
    config = tmp_path / "logrotate.conf"
    config.write_text(text.replace("su batchland batchland", owner))
    config.chmod(0o644)
    command = ["logrotate", "--force", "--state", str(tmp_path / "state"), str(config)]
    for content in ("a night\n", "another\n"):
        log.write_text(content)
        result = subprocess.run(command, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in log.parent.iterdir()) == ["cron.log.1", "cron.log.2.gz"]
    assert (log.parent / "cron.log.1").read_text() == "another\n"


def alert_case(
    name: str, hour: int, series: dict[str, str], fires: bool, severity: str = "ticket", **labels: str
) -> dict[str, object]:
    """A case of promtool's: series sampled every five minutes, and whether the alert fires at `hour`."""
    expected = [{"exp_labels": {"job_name": "nightly", "severity": severity, **labels}}] if fires else []
    return {
        "name": f"{name} at {hour} h, {series}",
        "interval": "5m",
        "input_series": [{"series": series_name, "values": values} for series_name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{hour}h", "alertname": name, "exp_alerts": expected}],
    }


NIGHTLY = 'job_name="nightly"'
MODEL = f'{NIGHTLY},model="toy"'
GOOD_AT_0 = {
    f"batchland_success_timestamp_seconds{{{NIGHTLY}}}": "0+0x400",
    f"batchland_exit_code{{{NIGHTLY}}}": "0+0x400",
}


def images(ok: str, failed: str) -> dict[str, str]:
    return {f'batchland_images{{{MODEL},status="ok"}}': ok, f'batchland_images{{{MODEL},status="failed"}}': failed}


def scored_by(provider: str, values: str) -> dict[str, str]:
    return {f'batchland_model_info{{{MODEL},sha256="a",device="x",provider="{provider}"}}': values}


ALERT_CASES = [
    alert_case("BatchlandNoGoodNight", 26, GOOD_AT_0, False),
    alert_case("BatchlandNoGoodNight", 28, GOOD_AT_0, True, severity="page"),
    alert_case(
        "BatchlandNoGoodNight", 28, {f"batchland_success_timestamp_seconds{{{NIGHTLY}}}": "0+0x12 stale"}, True,
        severity="page",
    ),
    alert_case("BatchlandNeverGood", 5, GOOD_AT_0, False),
    alert_case("BatchlandNeverGood", 5, {f"batchland_exit_code{{{NIGHTLY}}}": "5+0x120"}, True),
    alert_case("BatchlandNightFailed", 5, GOOD_AT_0, False),
    alert_case("BatchlandNightFailed", 5, {f"batchland_exit_code{{{NIGHTLY}}}": "4+0x120"}, True),
    alert_case(
        "BatchlandGateFailed", 2, {f'batchland_gate_passed{{{MODEL},gate="top1 < 0.7"}}': "1+0x11 0+0x20"}, True,
        model="toy", gate="top1 < 0.7",
    ),
    alert_case("BatchlandManyFailedImages", 1, images("99+0x24", "1+0x24"), False),
    alert_case("BatchlandManyFailedImages", 1, images("97+0x24", "3+0x24"), True, model="toy"),
    alert_case("BatchlandFewImages", 30, images("100+0x360", "0+0x360"), False),
    alert_case("BatchlandFewImages", 26, images("100+0x288 20+0x36", "0+0x360"), True, model="toy"),
    alert_case(
        "BatchlandSlow", 26, {f"batchland_images_per_second{{{MODEL}}}": "100+0x288 20+0x36"}, True,
        model="toy",
    ),
    alert_case(
        "BatchlandLostItsGpu", 4,
        scored_by("CUDAExecutionProvider", "1+0x12 stale") | scored_by("CPUExecutionProvider", "_x13 1+0x60"), True,
        model="toy",
    ),
    alert_case("BatchlandLostItsGpu", 4, scored_by("CPUExecutionProvider", "1+0x60"), False),
]  # fmt: skip


@needs("promtool")
def test_alerts_fire_when_they_should(tmp_path):
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]  # promtool would compare their wording, too
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(rules))
    test = {"rule_files": ["alerts.yaml"], "evaluation_interval": "5m", "tests": ALERT_CASES}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    result = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
