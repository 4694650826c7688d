"""The delivery contract: numbers, names, checksums, ignored files, copies, and images that come late."""

import hashlib
import json
import random
import shutil
from datetime import date, timedelta

import pyarrow.dataset as ds
import pytest
from job_files import JOB
from nights import model_run, night
from toys import COLOURS, picture

from batchland.errors import UsageError
from batchland.nightly.contract import read_expected, usual_number
from batchland.nightly.job import load_job
from batchland.nightly.plan import plan_night
from batchland.nightly.record_files import read_run
from batchland.nightly.runner import run_night

NIGHT = date(2024, 11, 23)
ADVICE = (
    "; run the night again when everything has arrived, or correct [delivery] in {}/toy.toml",
    "; correct the delivery, or correct [delivery] in {}/toy.toml, then run the night again",
)


def noisy_picture(seed):
    """A picture that no other seed gives."""
    return picture(tuple(random.Random(seed).choices(range(256), k=3)), size=(16 + seed % 7, 16))


def deliver(project, night=NIGHT, number=6, first=0):
    folder = project / "in" / str(night)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        (folder / f"{index}.jpg").write_bytes(noisy_picture(1000 * night.day + first + index))
    return folder


@pytest.fixture
def project(tmp_path, toy_model):
    (tmp_path / "toy.toml").write_text(JOB)
    deliver(tmp_path)
    return tmp_path


def run(project, *contract, night=NIGHT, settings=(), **options):
    """How the night ended: outcome, exit code, and message without the folder of images and the advice."""
    job = load_job(project / "toy.toml", [f"delivery.{rule}" for rule in contract] + list(settings))
    attempt = run_night(job, night, **options).attempt
    error = attempt.error
    for part in (f"{project}/in/{night}: ", *(f"{advice.format(project)}" for advice in ADVICE)):
        error = error and error.removeprefix(part).removesuffix(part)
    return attempt.outcome, attempt.exit_code, error


def scored(project):
    return (project / "out").exists()


@pytest.mark.parametrize(
    ("rule", "ending"),
    [
        ("min_images=6", ("ok", 0, None)),
        (
            "min_images=7",
            ("missing_input", 66, "6 images, fewer than min_images 7"),
        ),
        ("max_images=6", ("ok", 0, None)),
        ("max_images=5", ("wrong_delivery", 4, "6 images, more than max_images 5")),
        ("min_of_usual='100%'", ("ok", 0, None)),  # nothing is usual yet
    ],
)
def test_the_number_of_images(project, rule, ending):
    assert run(project, rule) == ending
    assert scored(project) == (ending[1] == 0)
    problems = plan_night(load_job(project / "toy.toml", [f"delivery.{rule}"]), NIGHT, force=True).problems
    assert [problem.exit_code for problem in problems] == ([ending[1]] if ending[1] else [])


def test_an_incomplete_delivery_is_not_skipped_and_may_be_retried(project):
    settings = ["on_missing=skip", "retry={attempts=2, wait='0.01s'}"]
    assert run(project, "min_images=7", settings=settings)[:2] == ("missing_input", 66)
    record = json.loads((project / "runs" / "toy" / str(NIGHT) / "run.json").read_text())
    assert [attempt["exit_code"] for attempt in record["attempts"]] == [66, 66]


def test_the_usual_number_is_a_median_of_good_nights_by_weekday():
    def good(*numbers, step=1, last=NIGHT - timedelta(days=1)):
        days = [last - timedelta(days=step * back) for back in range(len(numbers))]
        return [night(day, model_run(listed=number)) for day, number in zip(days, numbers, strict=True)]

    assert usual_number(NIGHT, good(1, 2, 3, 4)) is None
    assert usual_number(NIGHT, good(9, 1, 8, 2, 100)) == 8
    assert usual_number(NIGHT, [night(NIGHT, outcome="ok")] * 9) is None  # without predictions
    weeks = good(10, 20, 30, 40, step=7, last=NIGHT - timedelta(days=7)) + good(500, 500, 500)
    assert usual_number(NIGHT, weeks) == 25
    assert usual_number(NIGHT + timedelta(days=1), weeks) == 40
    assert usual_number(NIGHT, good(*[7] * 28, *[900] * 28)) == 453.5  # eight Saturdays
    assert usual_number(NIGHT, good(*[7] * 56, *[900] * 99)) == 7


def test_a_part_and_a_multiple_of_the_usual_number_break_the_contract(project):
    for back in range(1, 6):
        deliver(project, NIGHT - timedelta(days=back), number=8)
        assert run(project, night=NIGHT - timedelta(days=back))[0] == "ok"
    assert run(project, "min_of_usual='90%'") == (
        "missing_input", 66, "6 images, fewer than min_of_usual 90% of 8",
    )  # fmt: skip
    assert run(project, "max_of_usual='50%'") == (
        "wrong_delivery", 4, "6 images, more than max_of_usual 50% of 8",
    )  # fmt: skip
    assert run(project, "min_of_usual='75%'", "max_of_usual='75%'")[0] == "ok"


def expect(project, *rows, header="image"):
    (project / "expected.csv").write_text("\n".join([header, *rows]) + "\n")
    return f"expected={project}/expected.csv"


def test_expected_images_are_named(project):
    names = [f"{number}.jpg" for number in range(6)]
    assert run(project, expect(project, *names, "x.jpg", "y.jpg")) == (
        "missing_input", 66, f"lacks 2 of 8 images of the list {project}/expected.csv (x.jpg, y.jpg)",
    )  # fmt: skip
    assert run(project, expect(project, *names[:4])) == (
        "wrong_delivery", 4, f"2 images not in the list {project}/expected.csv (4.jpg, 5.jpg)",
    )  # fmt: skip
    data = (project / "in" / str(NIGHT) / "0.jpg").read_bytes()
    row = f"0.jpg,{len(data)},{hashlib.sha256(data).hexdigest().upper()}"
    rest = [f"{name},," for name in names[1:]]
    assert run(project, expect(project, "0.jpg,7", "1.jpg,", "x.jpg,", header="image,size")) == (
        "missing_input", 66, f"lacks 1 of 3 images of the list {project}/expected.csv (x.jpg); not as in the list "
        f"{project}/expected.csv: 0.jpg has {len(data)} bytes, not 7; 4 images not in the list {project}/expected.csv "
        "(2.jpg, 3.jpg, 4.jpg and 1 more)",
    )  # fmt: skip
    for wrong, message in (
        (row.replace(f",{len(data)},", ",7,"), f"has {len(data)} bytes, not 7"),
        (row[:-1] + ("0" if row[-1] != "0" else "1"), "has another sha256"),
    ):
        ending = run(project, expect(project, wrong, *rest, header="image,size,sha256"))
        assert ending == ("missing_input", 66, f"not as in the list {project}/expected.csv: 0.jpg {message}")
    assert not scored(project)
    assert run(project, expect(project, row, *rest, header="image,size,sha256"))[0] == "ok"


def test_a_list_that_is_missing_or_invalid(tmp_path, project):
    assert run(project, "expected=lists/{date}.csv") == (
        "missing_input", 66, f"{project}/lists/2024-11-23.csv: the list of expected images does not exist",
    )  # fmt: skip
    path = project / "expected.csv"
    for content, message in (
        (b"name\na.jpg\n", "is not a list of expected images, with the columns image; it has no column 'image'"),
        (b"image,size\na.jpg,many\n", "row 2: size 'many' is not a number of bytes"),
        (f"image,size\na.jpg,{'9' * 5000}\n".encode(), "row 2: size '999"),
        (b"image,sha256\na.jpg,abc\n", "row 2: sha256 'abc' is not 64 hexadecimal digits"),
        (
            "image\na\n".encode("utf-16"),
            "is not a list of expected images, with the columns image (line 1: is not UTF-8)",
        ),
        (b"", "is not a list of expected images, with the columns image (Empty CSV file)"),
        (b"image,image\na,b\n", "is not a list of expected images, with the columns image; it has 2 columns 'image'"),
        (b"image\na,b.jpg\n", "line 2: has 2 values, the header has 1"),
        (b"image;size\na.jpg;1\nb.jpg,2\n", "line 3: has 1 value, the header has 2"),
        (b"sep=;\nimage;size\na.jpg;many\n", "row 2: size 'many' is not a number of bytes"),
        (b'image,size\n"a.jpg,1\n', "line 2: a quote is not closed"),
        (b"image,size\n,1\n", "row 2: has no image"),
        (b"image,size\na.jpg,1\na.jpg,2\n", "row 3: a.jpg has other values than before"),
    ):
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_expected(path)
        assert message in str(caught.value)
    for separated in ("image,size\na.jpg,1\n", "Image; Size\na.jpg;1\n", "image;size\r\na.jpg;1\r\n",
                      "image\tsize\na.jpg\t1\n",
                      "sep=|\nimage|size\na.jpg|1\n", "\ufeffsize,image\n1,a.jpg\n1,a.jpg\n\n"):  # fmt: skip
        path.write_text(separated)
        assert read_expected(path) == {"a.jpg": (1, None)}


def test_ignored_files_are_counted_and_named(project):
    folder = project / "in" / str(NIGHT)
    for name in ("a.zip", "b.zip", "c.txt", ".hidden"):
        (folder / name).write_text("x")
    assert run(project, "max_ignored=2") == (
        "wrong_delivery", 4, "3 files ignored (.txt 1, .zip 2), more than max_ignored 2",
    )  # fmt: skip
    assert run(project, "max_ignored='49%'")[0] == "wrong_delivery"
    assert run(project, "max_ignored='50%'", settings=["exclude=['5.jpg']", "all_files=false"])[0] == "wrong_delivery"
    assert run(project, "max_ignored='50%'")[0] == "ok"


def test_one_picture_many_times_and_the_delivery_of_an_earlier_night(project):
    first, copies = NIGHT - timedelta(days=2), NIGHT - timedelta(days=1)
    limit = "max_duplicates='10%'"
    deliver(project, first)
    assert run(project, limit, night=first)[0] == "ok"
    for path in deliver(project, copies).iterdir():
        path.write_bytes(picture())
    assert run(project, limit, night=copies)[2] == (
        "5 of 6 images are copies (5 of this delivery; 1.jpg, 2.jpg, 3.jpg and 2 more), more than max_duplicates 10%"
    )
    shutil.rmtree(project / "in" / str(NIGHT))
    shutil.copytree(project / "in" / str(first), project / "in" / str(NIGHT))
    for path in (project / "in" / str(NIGHT)).iterdir():
        path.rename(path.with_name(f"renamed-{path.name}"))
    found = "6 of 6 images are copies (6 of the night 2024-11-21; renamed-0.jpg, "
    assert run(project, limit)[2].startswith(found)
    job = (project / "toy.toml").read_text()  # the output moves to model=other/
    (project / "toy.toml").write_text(f'{job.replace("model = ", "# ")}[models]\nother = "toy.onnx"\n')
    assert run(project, limit)[2].startswith(found)
    (project / "toy.toml").write_text(job)
    # The images of a night that was not scored are no copies: they may be its repaired delivery.
    for path in (project / "in" / str(NIGHT)).iterdir():
        path.unlink()
    (project / "in" / str(NIGHT) / "red.jpg").write_bytes(picture())
    assert run(project, limit, settings=["max_failed=0"])[0] == "ok"
    # A rerun of the night is no copy of itself.
    assert run(project, limit, force=True)[0] == "ok"


def rows(project):
    table = ds.dataset(project / "out" / f"date={NIGHT}").to_table()
    return table.drop_columns([]).to_pylist()


def test_late_images_are_added_to_the_partition(project):
    folder = project / "in" / str(NIGHT)
    (folder / "3.jpg").write_bytes(b"broken")
    assert run(project)[0] == "ok"
    before = {row["image"]: row for row in rows(project)}
    (folder / "b").mkdir()
    for name in ("00.jpg", "3-.jpg", "b/1.jpg", "z.jpg"):
        (folder / name).write_bytes(picture(COLOURS["02.Blue_Lake"]))
    (folder / "1.jpg").unlink()  # archived since: its row stays
    job = load_job(project / "toy.toml", ["delivery.late=score"])
    assert plan_night(job, NIGHT).lines[3] == "  add 4 images that came late"
    record = run_night(job, NIGHT).record
    (model,) = record.models
    assert (model.state, model.counts.listed, model.counts.failed) == ("extended", 10, 1)
    assert record.warnings == ()
    after = {row["image"]: row for row in rows(project)}
    names = ["0.jpg", "00.jpg", "1.jpg", "2.jpg", "3-.jpg", "3.jpg", "4.jpg", "5.jpg", "b/1.jpg", "z.jpg"]
    assert list(after) == names
    assert {name: after[name] for name in before} == before
    assert [path.name for path in (project / "out").iterdir()] == [f"date={NIGHT}"]
    assert run_night(job, NIGHT).record.models[0].state == "kept"


def test_late_images_must_meet_the_contract_with_the_others(project, caplog):
    names = [f"{number}.jpg" for number in range(6)]
    late = ("late='score'", "max_images=7", "max_duplicates=0", expect(project, *names))
    assert run(project, *late)[0] == "ok"
    before, folder = rows(project), project / "in" / str(NIGHT)
    for name, copied, message in (
        ("x.jpg", None, f"1 image not in the list {project}/expected.csv (x.jpg)"),
        ("x.jpg", "0.jpg", "1 of 7 images are copies (1 of this delivery; x.jpg), more than max_duplicates 0"),
        ("y.jpg", None, "8 images, more than max_images 7"),
    ):
        (folder / name).write_bytes((folder / copied).read_bytes() if copied else noisy_picture(7))
        expect(project, *names, *(["x.jpg"] if copied else []))
        settings = [f"delivery.{rule}" for rule in late]
        (problem,) = plan_night(load_job(project / "toy.toml", settings), NIGHT).problems
        outcome, code, error = run(project, *late)
        assert (outcome, code) == ("wrong_delivery", 4)
        assert error == f"{message}{ADVICE[1].format(project)} (nothing was changed, and the night stays good)"
        assert str(problem) == f"{folder}: {message}{ADVICE[1].format(project)}"
    expect(project, *names, "x.jpg", "z.jpg")
    (folder / "y.jpg").unlink()
    assert run(project, *late)[1] == 66
    record = read_run(project / "runs/toy" / str(NIGHT))
    assert (rows(project), record.good, record.models[0].counts.listed) == (before, True, 6)
    assert "that came late" not in caplog.text  # none was scored
    expect(project, *names, "x.jpg")
    (folder / "x.jpg").write_bytes(noisy_picture(8))
    assert run(project, *late)[0] == "ok"
    assert "toy: scoring 1 image that came late" in caplog.messages
    assert len(rows(project)) == 7


def test_late_images_are_not_added_under_another_model(project):
    assert run(project)[0] == "ok"
    deliver(project, number=7)
    record = run_night(load_job(project / "toy.toml", ["delivery.late=score", "top_k=1"]), NIGHT).record
    assert record.models[0].state == "kept"
    assert "1 image came after the night was scored" in record.warnings[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "max_ignored='-3'",
            '"delivery.max_ignored" = \'-3\': is neither a number nor a percentage; write it like 20 or "1.5%"',
        ),
        ("min_of_usual=50", '"delivery.min_of_usual" = 50: is not a percentage; write it like "50%"'),
        ("min_images=0", '"delivery.min_images" = 0: should be greater than or equal to 1'),
    ],
)
def test_invalid_rules(project, setting, message):
    with pytest.raises(UsageError) as caught:
        load_job(project / "toy.toml", [f"delivery.{setting}"])
    assert str(caught.value) == f"{project}/toy.toml: {message}"


def test_a_range_that_no_delivery_can_meet_is_an_error(project):
    with pytest.raises(UsageError) as caught:
        load_job(project / "toy.toml", ["delivery.min_images=10", "delivery.max_images=5"])
    assert str(caught.value) == f'{project}/toy.toml: "delivery": min_images 10 is more than max_images 5'
