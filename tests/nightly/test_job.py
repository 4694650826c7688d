"""The job file: paths, dates, tables, and one-line errors that name the key."""

import json
import os
from datetime import date, timedelta
from pathlib import Path

import pytest

from batchland.errors import UsageError
from batchland.nightly.job import Job, load_job
from batchland.nightly.job_fields import expand
from batchland.nightly.job_schema import job_schema

JOBS = Path(__file__).parents[2] / "jobs"
NIGHT = date(2024, 11, 23)
MINIMAL = 'images = "in"\nmodel = "m.onnx"\n'


def write(tmp_path, text=MINIMAL, name="toy.toml"):
    (tmp_path / "jobs").mkdir(exist_ok=True)
    path = tmp_path / "jobs" / name
    path.write_text(text)
    return path


def test_the_smallest_job(tmp_path):
    job = load_job(write(tmp_path))
    folder = tmp_path / "jobs"
    assert (job.name, job.file) == ("toy", folder / "toy.toml")
    assert job.images_of(NIGHT) == folder / "in"
    assert (job.model_names, job.model_file("m"), job.model_version("m")) == (("m",), folder / "m.onnx", None)
    assert job.partition("m", NIGHT) == folder / "predictions" / "date=2024-11-23"
    assert job.report("m", NIGHT) == folder / "runs" / "toy" / "2024-11-23" / "report" / "m"
    assert job.night(date(2024, 11, 24)) == NIGHT
    assert (job.top_k, job.mode, job.on_missing, job.settle, job.time_limit) == (5, "all", "fail", timedelta(0), None)
    assert (job.evaluation, job.retention, job.heartbeat, job.notify, job.metrics) == (None,) * 5


def test_paths_are_relative_to_the_root_and_dates_are_filled_in(tmp_path):
    text = """
        root = ".."
        images = "in/{date:%Y/%m/%d}/camera"
        output = "/data/out"
        date = "today"
        settle = "10m"
        time_limit = "1.5h"
        max_failed = 20

        [models]
        one = "models/one.onnx"
        two = "/models/two.onnx"

        [evaluation]
        labels = "labels/{date}.csv"
        corrections = "labels/corrections.csv"
        baseline = "reports/fixed"
        images = "photos"
        """
    job = load_job(write(tmp_path, text))
    assert job.images_of(NIGHT) == tmp_path / "in" / "2024" / "11" / "23" / "camera"
    assert job.model_names == ("one", "two")
    assert [job.model_file(name) for name in job.model_names] == [
        tmp_path / "models" / "one.onnx",
        Path("/models/two.onnx"),
    ]
    assert job.partition("two", NIGHT) == Path("/data/out/model=two/date=2024-11-23")
    assert expand(job.evaluation.labels, NIGHT) == tmp_path / "labels" / "2024-11-23.csv"
    assert job.evaluation.corrections == tmp_path / "labels" / "corrections.csv"
    assert (job.evaluation.baseline, job.evaluation.images) == (tmp_path / "reports" / "fixed", tmp_path / "photos")
    assert job.night(NIGHT) == NIGHT
    assert (job.settle, job.time_limit, job.max_failed) == (timedelta(minutes=10), timedelta(minutes=90), "20")


def test_settings_override_keys_and_bare_words_are_strings(tmp_path):
    settings = [
        "batch_size=8",
        "device=cpu",
        "retention.keep_days=3",
        'include=["*.png", "camera-1/"]',
        'name="other"',
    ]
    job = load_job(write(tmp_path), settings)
    assert (job.batch_size, job.device, job.retention.keep_days) == (8, "cpu", 3)
    assert (job.include, job.name) == (("*.png", "camera-1/"), "other")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["batchsize=3"], 'unknown key "batchsize" (did you mean "batch_size"?)'),
        (
            ["runs=s3://b/p"],
            "\"runs\" = 's3://b/p': is a URL; only images and output may be URLs, everything else is a path of this "
            "machine",
        ),
        (["labels=x"], 'unknown key "labels" (did you mean "evaluation.labels"?)'),
        (["min_images=3"], 'unknown key "min_images" (did you mean "delivery.min_images"?)'),
        (["notify.to=x"], 'unknown key "notify.to" (did you mean "notify.mail.to"?)'),
        (
            ["notify.mail={to=['a@b.example'], sender='a@b.example', server='s', on='change'}"],
            'unknown key "notify.mail.on" (did you mean "notify.on"?)',
        ),
        (["models.b=3"], '"models.b" = 3: should be the path of a model, or NAME@ALIAS of the registry'),
        (["models.b.path=x"], '"models.b": should be the path of a model, or NAME@ALIAS of the registry'),
        (
            ["models={a='a.onnx', max_failed='5%'}"],
            '"max_failed" in [models] is no model; the key "max_failed" belongs above all tables',
        ),
        (["delivery.min_of_usual='150%'"], "\"delivery.min_of_usual\" = '150%': is more than 100%"),
        (
            ["delivery={min_of_usual='40%', max_of_usual='30%'}"],
            '"delivery": min_of_usual 40% is more than max_of_usual 30%',
        ),
        (["notify.command=[]"], '"notify.command" = []: should not be empty'),
        (["retention.metrics=x"], 'unknown key "retention.metrics" ("metrics" belongs above all tables)'),
        (["retention.x=1"], 'unknown key "retention.x" (known: retention.keep_days, retention.keep_nights)'),
        (["batch_size=0"], '"batch_size" = 0: should be greater than 0'),
        (
            ["batch_size=0", "modes=1"],
            '"batch_size" = 0: should be greater than 0; unknown key "modes" (did you mean "models"?)',
        ),
        (["evaluation.gates=[]"], 'key "evaluation.labels" is missing'),
        (
            ["evaluation.labels=x", "evaluation.gates=['topp1 < 3']"],
            "\"evaluation.gates.0\" = 'topp1 < 3': gate 'topp1 < 3': unknown figure 'topp1' (did you mean 'top1'?)",
        ),
        (["evaluation=3"], '"evaluation" = 3: should be a table'),
        (
            ["max_failed=few"],
            "\"max_failed\" = 'few': max-failed 'few' is neither a number of images nor a percentage; give 20 or 1.5%",
        ),
        (["settle=10"], '"settle" = 10: is not a duration; write it like "90s", "10m", "3h" or "2d"'),
        (["time_limit=0s"], "\"time_limit\" = '0s': is zero; give a longer time"),
        (["settle=99999999999999d"], "\"settle\" = '99999999999999d': is longer than ten years"),
        (['output="a\\u0000b"'], "a value holds a zero byte; remove it"),
        (["images=in/{day}"], "\"images\" = 'in/{day}': {day} is unknown; write {date} or {date:%Y/%m/%d}"),
        (["images=in/{date"], "\"images\" = 'in/{date': has a single {; write {date} or {date:%Y/%m/%d}"),
        (["images=in/date}"], "\"images\" = 'in/date}': has a single }; write {date} or {date:%Y/%m/%d}"),
        (
            ["notify.slack='https://x.example/{TOKEN}'"],
            "\"notify.slack\" = 'https://x.example/{TOKEN}': has braces; write ${NAME} or ${file:PATH}, or for braces "
            "themselves %7B and %7D",
        ),
        (
            ["heartbeat={url='https://x.example', failure='{url}/{code}'}"],
            '"heartbeat": failure has other braces than {url} and {exit_code}',
        ),
        (["output=out/{date}"], "\"output\" = 'out/{date}': only images and labels may contain {date}"),
        (["exclude=['!']"], "\"exclude\" = ['!']: pattern '!': is not valid in .gitignore; write it like '*.png'"),
        (["models.a=b.onnx"], "give either model or [models]"),
        (["metrics=a.txt"], "metrics must end in .prom, or the node exporter ignores it"),
        (["retention={}"], '"retention": give keep_days, keep_nights or both'),
        (
            ["mode=new", "retention.keep_days=3"],
            'mode = "new" finds scored images in the partitions, so with [retention] images would be scored again; '
            "leave one of them out",
        ),
        (["heartbeat.url=ftp://x"], "\"heartbeat.url\" = 'ftp://x': URL scheme should be 'http' or 'https'"),
        (
            ["heartbeat={url='https://x.example', start='file:///etc/passwd'}"],
            "\"heartbeat\": start is not an http address; write it like '{url}/start'",
        ),
        (
            ["name=../up"],
            "\"name\" = '../up': should have only letters, digits, '.', '_' and '-', and begin with a letter or digit",
        ),
        (
            ["device=cud"],
            "\"device\" = 'cud': unknown device 'cud'; use auto, cpu, cuda, cuda:N, cuda:0,1, cuda:all or tensorrt",
        ),
        (
            ["evaluation.labels=x", "evaluation.gates=top1 < 70%"],
            '"evaluation.gates" = \'top1 < 70%\': should be a list, like ["one", "another"]',
        ),
        (["batch_size=true"], '"batch_size" = true: should be a whole number'),
        (["batch_size=8.0"], '"batch_size" = 8.0: should be a whole number'),
        (["batch_size='8'"], "\"batch_size\" = '8': should be a whole number"),
        (["signals=1"], '"signals" = 1: should be true or false'),
        (["timeout=true"], '"timeout" = true: should be a number'),
        (["timeout=nan"], '"timeout" = nan: should be a finite number'),
        (["timeout=-inf"], '"timeout" = -inf: should be a finite number'),
        (["monitor.false_alarms=nan"], '"monitor.false_alarms" = nan: should be a finite number'),
        (["monitor.false_alarms=9"], '"monitor.false_alarms" = 9: should be less than or equal to 5'),
        *(
            (settings, '"output" and "runs" would mix predictions with records; give one of them another folder')
            for settings in (
                ["output=runs"],
                ["output=."],
                ["output=runs/toy/x"],
                ["output=a/../runs/"],
                ["runs=predictions/x"],
            )
        ),
        (["timeout=-0.0"], '"timeout" = -0.0: should be greater than 0'),
        (["timeout=1e400"], '"timeout" = inf: should be a finite number'),
        (
            ["evaluation={labels='x', seed=99999999999999999999}"],
            '"evaluation.seed" = 99999999999999999999: should be a number up to 9007199254740992',
        ),
        (
            ["retention.keep_days=99999999999999999999"],
            '"retention.keep_days" = 99999999999999999999: should be a number up to 9007199254740992',
        ),
        (["timeout=1e10"], '"timeout" = 10000000000.0: is longer than ten years'),
        (
            [f"batch_size={'9' * 4000}"],
            '"batch_size" = a number of more than 100 digits: should be a number up to 9007199254740992',
        ),
        ([f"mode={'x' * 4000}"], f"\"mode\" = '{'x' * 49}…{'x' * 48}': should be 'all' or 'new'"),
        (["monitor.reference=[1, 2]"], '"monitor.reference" = [1, 2]: should be a date, like 2026-11-23'),
        (
            ["monitor.reference=[2026-11-01]"],
            '"monitor.reference" = [2026-11-01]: should be two dates, like [2026-11-01, 2026-11-14], or the path of '
            "predictions",
        ),
        (
            ["monitor.reference=['2026-11-01', '2026-13-01']"],
            "\"monitor.reference\" = ['2026-11-01', '2026-13-01']: should be two dates, like [2026-11-01, 2026-11-14], "
            "or the path of predictions",
        ),
        (["date=2026-11-01"], "\"date\" = 2026-11-01: should be 'today' or 'yesterday'"),
        (["monitor.min_accuracy=0.8"], '"monitor.min_accuracy" = 0.8: is not a percentage; write it like "50%"'),
        (
            ["delivery.max_duplicates=0.5"],
            '"delivery.max_duplicates" = 0.5: is neither a whole number nor a percentage; write it like 20 or "1.5%"',
        ),
        (
            ["settle=٣s"],
            '"settle" = \'٣s\': is not a duration; write it like "90s", "10m", "3h" or "2d"',
        ),
        (["images=5"], '"images" = 5: should be a path'),
        (["batch_size={}"], '"batch_size": should be a whole number'),
        (
            ["images=in/{date:%Y/%Q}"],
            "\"images\" = 'in/{date:%Y/%Q}': {date:%Y/%Q} has the unknown %Q; write {date} or {date:%Y/%m/%d}",
        ),
        (["monitor.min_accuracy='200%'"], "\"monitor.min_accuracy\" = '200%': is more than 100%"),
        (
            ["notify.mail={to=['me'], sender='a@b', server='x'}"],
            '"notify.mail.to.0" = \'me\': is not a mail address; write it like "ops@example.org"',
        ),
        (["exclude=*.png"], '"exclude" = \'*.png\': should be a list, like ["one", "another"]'),
    ],
)
def test_invalid_keys_and_values_are_named(tmp_path, settings, message):
    path = write(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_job(path, settings)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size", "setting 'batch_size': is not KEY=VALUE; write it like batch_size=8"),
        ("model.x=1", "setting 'model.x=1': model is not a table"),
    ],
)
def test_an_invalid_setting_is_rejected(tmp_path, setting, message):
    with pytest.raises(UsageError) as caught:
        load_job(write(tmp_path), [setting])
    assert str(caught.value) == message


def test_an_unreadable_file_is_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml: cannot be read \(No such file or directory\); give a job file"):
        load_job(tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"toy\.toml: is not a TOML file: .*line 1"):
        load_job(write(tmp_path, "images = in"))
    with pytest.raises(UsageError) as caught:
        load_job(write(tmp_path, f"batch_size = {'9' * 5000}"))
    assert str(caught.value) == (
        f"{tmp_path}/jobs/toy.toml: is not a TOML file: Exceeds the limit (4300 digits) for integer string conversion: "
        "value has 5000 digits"
    )
    with pytest.raises(UsageError) as caught:
        load_job(write(tmp_path, "mode = 's3cret'\nmode = 'new'\n"))
    assert str(caught.value) == (
        f"{tmp_path}/jobs/toy.toml: is not a TOML file: Cannot overwrite a value (at line 2, column 13)"
    )
    with pytest.raises(UsageError, match=r"toy\.toml: is not a TOML file: its lists are nested too deeply"):
        load_job(write(tmp_path, f"include = {'[' * 100_000}"))
    os.mkfifo(tmp_path / "fifo.toml")
    with pytest.raises(UsageError, match=r"fifo\.toml: cannot be read \(not a regular file\); give a job file"):
        load_job(tmp_path / "fifo.toml")


def test_a_file_of_a_windows_editor_is_read(tmp_path):
    """It begins with a byte order mark."""
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_job(path).name == "toy"


@pytest.mark.parametrize("key", ["images", "model", "output"])
def test_a_name_that_no_file_can_have_is_rejected(tmp_path, key):
    with pytest.raises(UsageError, match=f'"{key}" = .*: has a name of 300 bytes, more than the 255 that a file can'):
        load_job(write(tmp_path), [f"{key}=in/{'x' * 300}"])


def test_the_heartbeat_address_is_not_dumped(tmp_path):
    job = load_job(write(tmp_path), ["heartbeat.url=https://hc.example/secret/"])
    assert job.heartbeat.address("{url}/{exit_code}", 4) == "https://hc.example/secret/4"
    assert "secret" not in job.model_dump_json()


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.toml")), ids=lambda path: path.name)
def test_the_jobs_of_the_project_are_valid_and_name_their_schema(path):
    job = load_job(path)
    assert job.name == path.stem
    assert job.images_of(NIGHT).is_relative_to(JOBS.parent / "demo" / "sample")
    first = path.read_text().partition("\n")[0]
    assert (path.parent / first.removeprefix("#:schema ")).resolve() == JOBS.parent / "schemas" / "job.json"


def test_the_schema_describes_every_key():
    schema = job_schema()
    assert set(schema["properties"]) == set(Job.model_fields)
    assert schema["required"] == ["images"]
    tables = [schema, *schema["$defs"].values()]
    keys = {name: key for table in tables for name, key in table["properties"].items()}
    assert [name for name, key in keys.items() if "description" not in key and "$ref" not in json.dumps(key)] == []


def test_the_documentation_has_every_key_with_its_default():
    schema, rows = job_schema(), []
    for table in (schema, *schema["$defs"].values()):
        for name, key in table["properties"].items():
            if "$ref" not in json.dumps(key):
                default = "" if key.get("default") is None else f"`{json.dumps(key['default'])}`"
                default = "required" if name in table.get("required", ()) else default
                rows.append(f"| `{name}` | {default} | {' '.join(key['description'].split())} |")
    documented = (JOBS.parent / "docs" / "jobs.md").read_text().splitlines()
    assert sorted(line for line in documented if line.startswith("| `")) == sorted(rows)
