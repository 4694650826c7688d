"""Containerfile, compose.yaml and the Kubernetes examples: one image, no root, a read-only root file system."""

import os
import re
import shutil
import signal
import subprocess
import time
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from batchland import __version__
from batchland.cli.main import main
from batchland.nightly.site import make_site

ROOT = Path(__file__).parents[2]
IMAGE = f"registry.example.org/batchland:{__version__}"
QUADLET = shutil.which("quadlet", path=f"/usr/libexec/podman:{os.environ['PATH']}")
CONTAINERFILE = (ROOT / "Containerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def pod_containers():
    for path in sorted((ROOT / "cron").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and document.get("kind") in ("Job", "CronJob"):
                spec = document["spec"].get("jobTemplate", document)["spec"]["template"]["spec"]
                yield from ((path.name, spec, container) for container in spec["containers"])


def test_everything_that_is_copied_exists_and_reaches_the_build():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE) for name in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(allowed)
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_runs_without_privileges_and_checks_itself():
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^(USER|WORKDIR|ENTRYPOINT) (.*)$", last, re.MULTILINE) == [
        ("USER", "10001:10001"),
        ("WORKDIR", "/srv/batchland"),
        ("ENTRYPOINT", '["batchland"]'),
    ]
    assert 'CMD ["batchland", "doctor"]' in last


def test_pods_use_the_image_as_it_is_built():
    found = list(pod_containers())
    assert len(found) == 3
    for name, spec, container in found:
        assert container["image"] == IMAGE, name
        assert container["command"][0] == "/opt/batchland/.venv/bin/batchland"
        assert container["workingDir"] == "/srv/batchland"
        assert spec["securityContext"]["runAsUser"] == 10001
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_pods_are_not_started_again_where_a_rerun_does_not_help():
    table = (ROOT / "docs/operations.md").read_text()
    rerun = re.findall(r"^\| (\d+) \| .* \| (no|only if .*|no; .*) \|$", table, re.MULTILINE)
    document = yaml.safe_load((ROOT / "cron/cronjob.yaml").read_text())
    exit_codes, disruption = document["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert exit_codes["onExitCodes"]["values"] == sorted({int(code) for code, _ in rerun})
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]  # 1.31 requires the status


def test_the_quadlet_runs_the_job_in_the_image_as_it_is_built():
    text = (ROOT / "cron" / "batchland@.container").read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    assert settings["Image"] == IMAGE
    name, *arguments = settings["Exec"].split()
    main.commands[name].make_context(name, arguments)
    assert (settings["ReadOnly"], settings["DropCapability"], settings["NoNewPrivileges"]) == ("true", "all", "true")
    assert (settings["Volume"], settings["Type"]) == ("/srv/batchland:/srv/batchland", "oneshot")


@pytest.mark.skipif(QUADLET is None, reason="needs quadlet, of podman 4.4 or later")
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_podman_and_systemd_accept_the_quadlet(tmp_path):
    for name in ("batchland@.container", "batchland@.timer"):
        shutil.copy(ROOT / "cron" / name, tmp_path)
    environment = os.environ | {"QUADLET_UNIT_DIRS": str(tmp_path)}
    made = subprocess.run([str(QUADLET), "--dryrun"], capture_output=True, text=True, env=environment, check=True)
    (tmp_path / "batchland@.service").write_text(made.stdout.partition("---batchland@.service---\n")[2])
    units = [str(tmp_path / f"batchland@nightly.{kind}") for kind in ("service", "timer")]
    result = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_compose_mounts_folders_of_a_new_site(tmp_path):
    text = (ROOT / "compose.yaml").read_text()
    made = re.findall(r"mkdir /srv/photos/(\w+)", text)
    make_site(tmp_path / "site")
    mounted = re.findall(r"- \$\{SITE:-/srv/photos\}/(\w+):", text)
    assert (mounted, [name for name in mounted if not (tmp_path / "site" / name).is_dir()]) == (
        ["metrics", "runs"],
        made,
    )


def test_compose_has_the_job_its_metrics_and_its_reports():
    services = COMPOSE["services"]
    assert list(services) == ["nightly", "metrics", "reports"]
    for service in services.values():
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert services["nightly"]["image"] == IMAGE
    script = services["nightly"]["entrypoint"][0]
    assert fnmatchcase(script, "/opt/batchland/.venv/share/batchland/cron/every-night.sh")
    assert (ROOT / "cron" / Path(script).name).stat().st_mode & 0o111


@pytest.fixture
def fake_batchland(tmp_path):
    """A `batchland` that notes its arguments and SIGTERM, and a `date` by which each time is a second away."""
    program = tmp_path / "batchland"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\n'
        f"trap 'echo stopped >> {tmp_path}/ran; exit 143' TERM\nsleep 30 & wait $!\n"
    )
    program.chmod(0o755)
    clock = tmp_path / "date"
    clock.write_text('#!/bin/sh\n[ "$1" = +%s ] && echo 100 || echo 101\n')
    clock.chmod(0o755)
    return tmp_path


def test_every_night_runs_the_job_at_its_time_and_hands_on_sigterm(fake_batchland):
    environment = {"PATH": f"{fake_batchland}:{os.environ['PATH']}"}
    command = [ROOT / "cron" / "every-night.sh", "03:30", "jobs/nightly.toml"]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 20
        while not (fake_batchland / "ran").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert (fake_batchland / "ran").read_text() == "run jobs/nightly.toml\nstopped\n"


@pytest.mark.parametrize(
    ("now", "time", "wakes"),
    [
        ("2026-03-28T12:00+01:00", "02:30", "2026-03-29T03:30+02:00"),  # 2:30 does not exist on that day
        ("2026-03-29T00:10+01:00", "02:30", "2026-03-29T03:30+02:00"),
        ("2026-03-29T04:00+02:00", "02:30", "2026-03-30T02:30+02:00"),  # although `date` refuses "tomorrow 02:30" then
        ("2026-03-28T12:00+01:00", "03:30", "2026-03-29T03:30+02:00"),
        ("2026-10-24T12:00+02:00", "08:09", "2026-10-25T08:09+01:00"),
        ("2026-10-24T12:00+02:00", "25:00", None),
    ],
)
def test_every_night_waits_for_its_time_also_when_clocks_change(tmp_path, now, time, wakes):
    wait_for(tmp_path, "Europe/Berlin", now, time, wakes)


def test_every_night_waits_past_midnight_where_clocks_skip_the_hour_before_it(tmp_path):
    wait_for(tmp_path, "America/Nuuk", "2027-03-27T12:00-02:00", "23:30", "2027-03-28T00:30-01:00")


def wait_for(tmp_path, zone, now, time, wakes):
    """Run every-night.sh at `now`, and assert that it sleeps until `wakes`; None: that it ends with exit code 2."""
    moment = datetime.fromisoformat(now)
    real = shutil.which("date")
    today, tomorrow = moment.date(), moment.date() + timedelta(days=1)
    for name, text in {
        "date": f'[ "$1" = +%s ] && {{ echo {moment.timestamp():.0f}; exit; }}\n'
        f'case $2 in tomorrow*) {real} -d "{today} ${{2#tomorrow }}" >/dev/null || exit;; esac\n'  # as GNU's does
        f'exec {real} -d "$(echo "$2" | sed "s/today/{today}/; s/tomorrow/{tomorrow}/")" "$3"',
        "sleep": f"echo $1 > {tmp_path}/seconds; kill -TERM $PPID",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TZ": zone}
    command = [ROOT / "cron" / "every-night.sh", time, "jobs/nightly.toml"]
    status = subprocess.run(command, env=environment, capture_output=True, check=False).returncode
    if wakes is None:
        assert status == 2
    else:
        seconds = (datetime.fromisoformat(wakes) - moment).total_seconds()
        assert (status, int((tmp_path / "seconds").read_text())) == (143, seconds)
