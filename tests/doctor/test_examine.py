"""`batchland doctor` on working and broken installations, models and jobs: results and advice of the checks."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import date, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner
from nights import accepted, model_run, night
from toys import needs_codec, picture, toy_card, write_toy_model

from batchland.cli.advice import with_advice
from batchland.cli.main import main
from batchland.doctor import installation
from batchland.doctor.check import Check
from batchland.doctor.examine import examine_installation, examine_job, examine_model
from batchland.doctor.installation import check_jpeg_decoder, check_packages
from batchland.doctor.machine import check_disk, check_memory
from batchland.models.gpu import jpeg_decoder
from batchland.nightly.record_files import update_run
from batchland.system.lock import locked

YESTERDAY = date.today() - timedelta(days=1)


@pytest.fixture
def job(tmp_path, toy_model):
    """A job file with its input, beside the toy model."""
    (tmp_path / "incoming" / str(YESTERDAY)).mkdir(parents=True)
    (tmp_path / "incoming" / str(YESTERDAY) / "a.jpg").write_bytes(picture())
    path = tmp_path / "nightly.toml"
    path.write_text('images = "incoming/{date}"\nmodel = "toy.onnx"\ndevice = "cpu"\n')
    return path


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    found = list(checks)
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def test_a_healthy_installation(toy_model):
    found = by_name([*examine_installation(), *examine_model(toy_model, "cpu")])
    assert list(found) == [
        "python", "packages", "training", "onnxruntime", "formats", "cpu", "cuda", "cuda libraries", "cores", "memory",
        "disk", "model",
    ]  # fmt: skip
    assert {check.state for check in found.values() if check.name not in ("cuda", "memory", "disk")} == {"ok"}
    assert re.match(
        r"batchland 0\.1\.0, braceexpand \S+, click \S+, (cykooz-resizer \S+, )?jinja2 ", found["packages"].found
    )
    assert found["formats"].found == "JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF"
    assert found["cpu"].found == "CPUExecutionProvider ran a convolution"
    assert re.fullmatch(r"\d+ usable( of the machine's \d+)?", found["cores"].found)
    assert re.fullmatch(rf"{toy_model}: toy, 3 classes, sha256 [0-9a-f]{{12}}, runs on cpu", found["model"].found)


def test_cuda_is_checked_by_running_a_model():
    found = by_name(examine_installation())["cuda"]
    if found.state == "ok":
        assert found.found == "CUDAExecutionProvider ran a convolution on cuda:0"
    else:
        assert found.state == "warn"
        assert found.found.startswith("not usable: ")
        assert found.advice == "nothing to do if you score on the CPU"


def distribution(folder: Path, name: str, number: str) -> None:
    """Write the metadata of an installed wheel that contains the package onnxruntime."""
    info = folder / f"{name.replace('-', '_')}-{number}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    (info / "top_level.txt").write_text("onnxruntime\n")


def test_two_onnxruntime_wheels_side_by_side(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime-gpu"):
        distribution(tmp_path / "site", name, "9.9.9")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert by_name(examine_installation())["onnxruntime"] == Check(
        "onnxruntime",
        "fail",
        "onnxruntime 9.9.9, onnxruntime-gpu 9.9.9 are installed side by side and break each other",
        "pip uninstall -y onnxruntime onnxruntime-gpu; then pip install onnxruntime-gpu",
    )


def test_removing_one_of_two_onnxruntime_wheels_breaks_the_other(tmp_path):
    """`import onnxruntime` then gives an empty module. Every check that needs it fails; none crashes."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathlib import Path\n"
        "from batchland.doctor.examine import examine_installation, examine_job, examine_model\n"
        "for check in (*examine_installation(), *examine_model(), *examine_job(Path('nightly.toml'))):\n"
        "    print(check.state, check.name, check.advice, sep='|')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in result.stdout.splitlines() if line.startswith("fail")]
    reinstall = "reinstall batchland into a fresh environment"
    failed = [line.split("|")[1:] for line in lines[1:]]
    assert failed == [[name, reinstall] for name in ("cpu", "cuda", "model", "job")]
    assert re.fullmatch(r"fail\|onnxruntime\|pip uninstall -y (onnxruntime(-gpu)?); then pip install \1", lines[0])


def test_a_package_that_is_missing_and_one_that_is_too_old():
    wanted = ["numpy>=999", "no-such-package>=1", "torch>=999; extra == 'train'", "click"]
    found = by_name(check_packages(wanted))["packages"]
    assert (found.state, found.advice) == ("fail", "pip install -U batchland")
    assert re.fullmatch(r"numpy \S+ is not >=999, no-such-package is not installed", found.found)


@pytest.mark.parametrize(("wheel", "state"), [("onnxruntime", "ok"), ("other", "fail")])
def test_an_installation_for_cpus_has_onnxruntime_instead_of_onnxruntime_gpu(monkeypatch, wheel, state):
    monkeypatch.setattr(installation, "installed_version", {wheel: "1.31"}.get)
    found = by_name(check_packages(["onnxruntime-gpu>=1.28"]))["packages"]
    ok = f"batchland {version('batchland')}, onnxruntime 1.31"
    expected = {"ok": ok, "fail": "onnxruntime-gpu is not installed"}[state]
    assert (found.state, found.found) == (state, expected)


def test_little_memory_and_a_disk_that_cannot_be_written():
    found = "0.5 GiB usable of the machine's 16.0 GiB"
    advice = "raise the container's limit, or lower batch_size and num_workers"
    assert list(check_memory(2**29, 2**34)) == [Check("memory", "warn", found, advice)]
    (disk,) = check_disk("disk", Path("/proc"))
    assert (disk.state, disk.found.split(" (")[0]) == ("fail", "/proc: cannot be written")


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.EROFS, "Read-only file system", "mount a folder there, or write elsewhere"),
        (errno.EACCES, "Permission denied", "give user {user} the right to write there, or write elsewhere"),
        (errno.ENOSPC, "No space left on device", "free some space, or write elsewhere"),
    ],
)
def test_a_working_folder_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path, number, reason, advice):
    def no_file(**_):
        raise OSError(number, reason)

    monkeypatch.setattr("tempfile.TemporaryFile", no_file)
    found = next(iter(examine_model(folder=tmp_path)))
    assert found == Check("disk", "warn", f"{tmp_path}: cannot be written ({reason})", advice.format(user=os.geteuid()))


@needs_codec
def test_the_jpeg_decoder_is_run(monkeypatch):
    version = jpeg_decoder.load_codec().__version__
    found = f"nvImageCodec {version}, CPU_ONLY; damaged files are found by the CPU"
    assert list(check_jpeg_decoder("cpu")) == [Check("jpeg decoder", "ok", found)]
    monkeypatch.setattr(jpeg_decoder, "MIN_VERSION", (99, 0))
    found = (
        f"not usable: nvImageCodec {version} is too old; pip install -U 'batchland[decode-cuda]'; only decode = "
        '"cuda" needs it'
    )
    assert list(check_jpeg_decoder("cpu")) == [Check("jpeg decoder", "ok", found)]


def test_little_free_disk_space_is_a_warning(tmp_path):
    (found,) = check_disk("disk", tmp_path / "not" / "yet", least=2**60)
    assert found.state == "warn"
    assert re.fullmatch(rf"\d+\.\d GiB free at {tmp_path}", found.found)


def test_a_file_that_is_not_a_model(tmp_path, toy_model):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    found = by_name(examine_model(tmp_path / "broken.onnx"))["model"]
    assert (found.state, found.found.split(": ")[:2]) == (
        "fail", [str(tmp_path / "broken.onnx"), "onnxruntime cannot load it"]
    )  # fmt: skip


def test_a_job_that_is_ready(job, tmp_path, toy_model):
    found = list(examine_job(job))
    name, state, result, advice = found.pop(2)
    assert (name, state, advice) == ("model toy", "ok", "")
    assert result.startswith(f"{toy_model}: toy, 3 classes")
    assert [check._replace(found=re.sub(r"^\S+ GiB", "N GiB", check.found)) for check in found] == [
        Check("job", "ok", f"{job}: nightly, next for {YESTERDAY}"),
        Check("input", "ok", f"{tmp_path}/incoming/{YESTERDAY}"),
        Check("disk, output", "ok", f"N GiB free at {tmp_path}"),
        Check("disk, records", "ok", f"N GiB free at {tmp_path}"),
        Check("lock", "ok", "free"),
        Check("last night", "ok", "none yet"),
    ]


def test_a_job_with_many_problems(job, tmp_path):
    shutil.rmtree(tmp_path / "incoming")
    write_toy_model(tmp_path / "other.onnx", toy_card())
    job.write_text(
        'images = "incoming/{date}"\ndevice = "cuda:7"\nmetrics = "/proc/batchland.prom"\n'
        '[models]\nfirst = "other.onnx"\nsecond = "none.onnx"\n'
        '[evaluation]\nlabels = "labels-{date}.csv"\n[notify]\ncommand = ["no-such-program"]\n'
    )
    record = night(YESTERDAY, outcome="gate_failed", error="gate failed: top1 < 0.9")
    update_run(tmp_path / "runs" / "nightly" / str(YESTERDAY), record)
    with locked(tmp_path / "runs" / "nightly" / ".lock", "nightly"):
        found = by_name(examine_job(job, partial(with_advice, flags=())))
    assert found["input"] == Check(
        "input",
        "warn",
        f"{tmp_path}/incoming/{YESTERDAY}: does not exist; is the delivery late, or `images` in {job} wrong?",
        "wait for the delivery, or correct the job file",
    )
    assert found["labels"] == Check(
        "labels",
        "warn",
        f"{tmp_path}/labels-{YESTERDAY}.csv: does not exist; the night fails",
        "deliver them, or correct the job file",
    )
    assert found["notify"] == Check(
        "notify", "warn", "no-such-program: no such program", "install it, or give its full path"
    )
    assert (found["disk, metrics"].state, found["disk, metrics"].found[:24]) == ("fail", "/proc: cannot be written")
    assert (found["model first"].state, found["model first"].found[:35]) == (
        "fail",
        "device cuda:7 cannot be used here: ",
    )
    assert found["model second"].found == (
        f"{tmp_path}/none.onnx: cannot be read (No such file or directory); give an exported or adopted model"
    )
    assert (found["lock"].state, found["lock"].found.split(" on ")[0]) == ("warn", f"held by process {os.getpid()}")
    assert found["last night"] == Check(
        "last night",
        "warn",
        f"{YESTERDAY}: gate failed (gate failed: top1 < 0.9)",
        f"correct the cause; to run it again: `batchland run {job} --date {YESTERDAY}`",
    )


def test_a_time_zone_that_does_not_exist(job, monkeypatch):
    zones = ("Europe/Berlin", ":Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin", "Etc/GMT+5")
    for good in (*zones, "CET-1CEST", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0330>-3:30", "UTC", ""):
        monkeypatch.setenv("TZ", good)
        assert "time zone" not in by_name(examine_job(job))
    for wrong in ("Europe/Berln", "/Europe/Berlin", "A1", "+7"):
        monkeypatch.setenv("TZ", wrong)
        assert by_name(examine_job(job))["time zone"] == Check(
            "time zone",
            "warn",
            f"TZ={wrong}: there is no such zone here, so dates and times are those of UTC",
            "correct the variable, or install the package tzdata",
        )


def test_a_suspicious_night_is_to_be_looked_at(job, tmp_path):
    record = night(YESTERDAY, model_run(), outcome="suspicious", error="2 images are copies")
    folder = tmp_path / "runs" / "nightly" / str(YESTERDAY)
    update_run(folder, record)
    assert by_name(examine_job(job))["last night"] == Check(
        "last night",
        "warn",
        f"{YESTERDAY}: suspicious (2 images are copies)",
        "look at its pictures",
    )
    shown = CliRunner().invoke(main, ["doctor", "--job", str(job)]).stdout
    assert shown.endswith(
        f"(2 images are copies) -> look at its pictures; to accept it: `batchland accept nightly --date {YESTERDAY} "
        f"--runs {tmp_path}/runs`; to replace it: `batchland run {job} --date {YESTERDAY} --force`\n"
    )
    update_run(folder, accepted(record, YESTERDAY))
    assert by_name(examine_job(job))["last night"] == Check("last night", "ok", f"{YESTERDAY}: suspicious, accepted")


def test_a_job_file_with_a_mistake(job):
    job.write_text('images = "incoming"\nmodel = "toy.onnx"\nbatchsize = 4\n')
    (found,) = examine_job(job)
    assert found == Check("job", "fail", f'{job}: unknown key "batchsize" (did you mean "batch_size"?)')


def test_the_command(job, toy_model):
    run = CliRunner().invoke
    healthy = run(main, ["doctor", "--job", str(job)])
    assert healthy.exit_code == 0
    assert f"ok    job             {job}: nightly, next for {YESTERDAY}\n" in healthy.output
    found = json.loads(run(main, ["doctor", "--model", str(toy_model), "--json"]).output)
    assert [check["name"] for check in found["checks"]][-2:] == ["disk", "model"]
    failing = run(main, ["doctor", "--model", "absent.onnx"])
    assert failing.exit_code == 1
    problem = "absent.onnx: cannot be read (No such file or directory); give an exported or adopted model"
    assert failing.output.splitlines()[-1] == f"fail  model           {problem}"
    both = run(main, ["doctor", "--job", str(job), "--device", "cpu"])
    assert (both.exit_code, both.stderr.splitlines()[-1]) == (
        2, "Error: the job file sets the models and the device; leave out --model and --device"
    )  # fmt: skip
