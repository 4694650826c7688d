"""Let each system call of a command fail once: no traceback, the right exit code, no partial files, a normal rerun.

`pytest -m slow tests/predictions/test_fault_sweep.py -s` runs the sweep whole and prints its figures. With FAULTS=5 in
the environment, it tries five faults of each kind; with FAULTS=1/3, a random third, chosen by FAULTS_SEED (0).
"""

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from toys import COLOURS, picture

FAULTS = Path(__file__).parents[1] / "faults"
COMPILER = shutil.which("cc") or shutil.which("gcc")
PAGES = {"job/trend.html", "job/trend.parquet", "index.html"}
"""Of all nights. A night does not fail because they cannot be written."""
KINDS = ("open", "read", "write", "truncate", "fsync", "close", "rename", "mkdir", "unlink", "stat", "list", "flock")
SCENARIOS = (
    "score",
    "score-folder",
    "overwrite",
    "overwrite-folder",
    "retry",
    "retry-folder",
    "merge",
    "images",
    "evaluate",
    "predictions",
    "night",
    "record",
    "plan",
    "planned",
    "duplicates",
    "index",
    "accept",
    "history",
)
"""`images`, `planned` and `predictions`: `score`, `score --plan` and `evaluate`, with the calls below what they read
failing.

`record`: a night, with the calls for its record failing."""
NIGHT = "2026-11-23"
JOB = """
root = ".."
images = "photos"
model = "toy.onnx"
output = "work/out"
device = "cpu"
batch_size = 4
part_size = 8
monitor = {action = "off"}

[evaluation]
labels = "labels.csv"
brightness_sample = 0
resamples = 200
"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="a library is preloaded, as on Linux"),
    pytest.mark.skipif(COMPILER is None, reason="needs a C compiler"),
]


class Outcome(NamedTuple):
    code: int
    text: str
    count: int
    """Calls of the kind below the folder."""
    path: str
    """Of the call that failed."""


class Driver:
    """Runs commands of batchland in forks of one process that has imported everything."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._log = folder / "log"
        environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, FAULTS / "driver.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(
        self, cwd: Path, command: list[str], below: str = "", kind: str = "none", n: int = 0, code: int = errno.EIO
    ) -> Outcome:
        report = Path(f"{self._log}.json")
        report.unlink(missing_ok=True)
        job = {"cwd": str(cwd), "command": command, "below": str(cwd / below), "kind": kind, "n": n, "errno": code}
        print(json.dumps(job | {"log": str(self._log)}), file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"
        assert report.exists(), f"{command} died: {self._log.read_text()}"
        return Outcome(text=self._log.read_text(), **json.loads(report.read_text()))

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("faults")
    library = folder / "fault.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, FAULTS / "fault.c", "-ldl"], check=True)
    running = Driver(library, folder)
    yield running
    running.close()


class Scenario(NamedTuple):
    command: list[str]
    below: str
    """System calls below this folder fail."""
    before: Path
    """The working folder before the command."""
    expected: dict[str, bytes]
    """Files of `published` after an undisturbed run."""

    @property
    def published(self) -> str:
        return "runs" if self.below == "runs" else "work"


SCORE = ["score", "photos", "--model", "toy.onnx", "--device", "cpu", "--batch-size", "4", "--part-size", "8"]


def contents(folder: Path) -> dict[str, bytes]:
    """The files that a command publishes, without what differs between any two runs (times, in JSON and HTML)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if any(part.startswith(".") for part in Path(name).parts) or not path.is_file():
            continue
        found[name] = path.read_bytes()
        if path.suffix == ".json":
            found[name] = b"" if json.loads(found[name]) else b"null"
        elif path.suffix == ".html":
            found[name] = found[name].rstrip()[-7:]
        elif path.name == "trend.parquet":
            found[name] = found[name][:4] + found[name][-4:]
        elif path.suffix not in (".parquet", ".csv"):
            found[name] = b""
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory, driver: Driver) -> Path:
    """Photos, two of them broken, and a model."""
    from toys import write_toy_model

    root = tmp_path_factory.mktemp("project")
    write_toy_model(root / "toy.onnx")
    labels = ["image,label\n"]
    for number in range(20):
        data = picture(list(COLOURS.values())[number % 3])
        (root / "photos" / f"camera-{number // 10}").mkdir(parents=True, exist_ok=True)
        name = f"camera-{number // 10}/{number:02}.jpg"
        (root / "photos" / name).write_bytes(data[: len(data) // 2] if number % 10 == 7 else data)
        labels.append(f"{name},{list(COLOURS)[number % 3]}\n")
    (root / "labels.csv").write_text("".join(labels))
    (root / "work").mkdir()
    (root / "work/job.toml").write_text(JOB)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where every command runs: predictions name the scored folder by its absolute path."""
    return tmp_path_factory.mktemp("here") / "w"


@pytest.fixture(scope="module")
def prepare(tmp_path_factory, project: Path, driver: Driver, folder: Path):
    made: dict[str, Scenario] = {}

    def run(*commands: list[str]) -> None:
        for command in commands:
            outcome = driver.run(folder, command)
            assert outcome.code == 0, outcome.text

    def make(name: str) -> Scenario:
        if name in made:
            return made[name]
        reset(folder, project)
        out = "work/p" if name.endswith("-folder") else "work/p.parquet"
        score = [*SCORE, "--out", out]
        command = score
        if name == "merge":
            run(*([*SCORE, "--out", "shards", "--shard", f"{index}/2"] for index in range(2)))
            command = ["merge", "shards", "--out", out]
        elif name.startswith("overwrite"):
            run([*score, "--top-k", "1"])
            command = [*score, "--overwrite"]
        elif name == "plan":
            command = ["plan", "photos", "--out", "work/plan", "--parts", "2"]
        elif name == "planned":
            run(["plan", "photos", "--out", "read/plan", "--parts", "2"])
            command = [*SCORE[:1], "--plan", "read/plan", *SCORE[2:], "--out", out]
        elif name == "duplicates":
            run([*SCORE, "--out", "read/p.parquet"])
            command = ["duplicates", "read/p.parquet", "--out", "work/copies.csv", "--page", "work/copies.html"]
        elif name == "index":
            run(["run", "work/job.toml", "--date", NIGHT])
            command = ["index"]
        elif name in ("accept", "history"):
            write_nights(folder / "runs/job")
            command = [name, "job"] + (["--date", "2024-10-07"] if name == "accept" else [])
        elif name in ("evaluate", "predictions"):
            run([*SCORE, "--out", "read/p.parquet"])
            command = ["evaluate", "read/p.parquet", "--labels", "labels.csv", "--out", "work/report"]
        elif name in ("night", "record"):
            command = ["run", "work/job.toml", "--date", NIGHT]
        elif name.startswith("retry"):
            run(score)
            (folder / "photos/camera-1/17.jpg").write_bytes(picture(list(COLOURS.values())[17 % 3]))
            command = [*score, "--retry-failed"]
        before = tmp_path_factory.mktemp("before") / "w"
        reset(before, folder)
        run(command)
        below = {
            "images": "photos",
            **dict.fromkeys(("planned", "predictions"), "read"),
            **dict.fromkeys(("record", "index", "accept", "history"), "runs"),
        }
        scenario = Scenario(command, below.get(name, "work"), before, {})
        made[name] = scenario._replace(expected=contents(folder / scenario.published))
        return made[name]

    return make


def write_nights(records: Path) -> None:
    """Records of six good nights and a suspicious one."""
    from datetime import date

    from nights import like_others, mix, model_run, night, unlike_others

    from batchland.nightly.record_files import update_run

    for number in range(1, 8):
        day, outcome = date(2024, 10, number), "suspicious" if number == 7 else "ok"
        verdict = like_others() if outcome == "ok" else unlike_others()
        run = model_run(monitor=verdict, mix=mix({"red": 50, "blue": 50}, [0.9] * 100))
        error = None if outcome == "ok" else "too dark"
        update_run(records / str(day), night(day, run, outcome=outcome, error=error, job="job"))


def reset(folder: Path, origin: Path) -> None:
    """Make `folder` a copy of `origin`, with its times."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(origin, folder, symlinks=True)


def check(driver: Driver, scenario: Scenario, folder: Path, kind: str, n: int, code: int) -> str:
    """Run with one fault, then rerun. Returns the problems found."""
    reset(folder, scenario.before)
    published = folder / scenario.published
    old = contents(published)
    outcome = driver.run(folder, scenario.command, scenario.below, kind, n, code)
    found = contents(published)
    last = (outcome.text.splitlines() or [""])[-1]
    where = f"{kind} {n} of {outcome.count}, {outcome.path.removeprefix(str(folder))}: exit {outcome.code}, {last}"
    if "Traceback" in outcome.text:
        frames = re.findall(r"batchland/(\S+)\", line (\d+)", outcome.text)
        return f"{where}: traceback {' '.join(map(':'.join, frames[-4:]))}"
    if outcome.code not in (0, 74):
        return where
    if outcome.code == 0:
        hidden = [path for path in published.rglob(".*") if not path.name.endswith(".lock")]
        if hidden and "cannot be removed" not in outcome.text:
            return f"{where}: leaves {[path.name for path in hidden]} and does not say so"
        if found == scenario.expected:
            return ""
        late = {name for name, data in scenario.expected.items() if found.get(name) != data}
        if scenario.published != "runs" or not late <= PAGES or not re.search("cannot be (written|read)", outcome.text):
            return where + different(found, scenario.expected)
        if scenario.command[0] != "run":
            return ""  # the next night writes its pages
    torn = [name for name, data in found.items() if data not in (old.get(name), scenario.expected.get(name))]
    output, old_output, new_output = (
        {name: data for name, data in files.items() if name.startswith("p/")}
        for files in (found, old, scenario.expected)
    )
    if torn or output not in (old_output, new_output):
        return f"{where}: torn {torn or sorted(output)}"
    again = driver.run(folder, scenario.command)
    found = contents(published)
    late = {name for name, data in scenario.expected.items() if found.get(name) != data}
    if again.code == 2 and "accepted already" in again.text and late <= PAGES:
        return ""  # the last call after the record was written failed
    if again.code != 0 or found != scenario.expected:
        return f"{where}; then exit {again.code}, {again.text[-200:]}{different(found, scenario.expected)}"
    return ""


def different(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    return f": other files: {sorted({name for name, _ in found.items() ^ expected.items()})}"


Choice = Callable[[int], Sequence[int]]
"""The calls to fail, of so many; from 1."""


def spread(most: int) -> Choice:
    """At most so many calls, spread over the run."""
    return lambda calls: sorted({1 + calls * k // most for k in range(most)}) if calls else ()


def chosen_by(environment: dict[str, str], name: str) -> Choice:
    """As FAULTS says. name: of the scenario."""
    given, seed = environment.get("FAULTS", "1/1"), environment.get("FAULTS_SEED", "0")
    if "/" not in given:
        return spread(int(given))
    chance = random.Random(f"{seed} {name}")
    return lambda calls: sorted(chance.sample(range(1, calls + 1), -int(-calls * Fraction(given) // 1)))


def sweep(
    driver: Driver, scenario: Scenario, folder: Path, kinds: tuple[str, ...], choice: Choice
) -> tuple[int, list[str]]:
    """Number of faults tried, and the problems found."""
    tried, wrong = 0, []
    for kind in kinds:
        reset(folder, scenario.before)
        calls = driver.run(folder, scenario.command, scenario.below, kind).count
        for n in choice(calls):
            tried += 1
            code = errno.ENOSPC if kind in ("write", "truncate") else errno.EIO
            if problem := check(driver, scenario, folder, kind, n, code):
                wrong.append(problem)
    return tried, wrong


@pytest.mark.parametrize("name", ["score", pytest.param("overwrite-folder", marks=pytest.mark.slow)])
def test_some_calls_fail(driver, prepare, folder, name):
    tried, wrong = sweep(driver, prepare(name), folder, KINDS, spread(1))
    assert wrong == []
    assert tried >= 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_call_fails_once(driver, prepare, folder, name):
    tried, wrong = sweep(driver, prepare(name), folder, KINDS, chosen_by(dict(os.environ), name))
    kinds = Counter(problem.split()[0] for problem in wrong)
    print(f"\n{name}: {tried} faults, {len(wrong)} wrong {dict(kinds)}", *wrong, sep="\n")
    assert wrong == []
