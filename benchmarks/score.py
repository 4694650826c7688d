"""The speed of scoring, compared with the limit of the machine and with other programs.

    python -m benchmarks.score --model scratch --size small --count 1000
    python -m benchmarks.score --images photos/ --model models/transfer.onnx

Each way runs as a separate process; all take turns, round after round, so that a drift of the machine affects all.
The table gives medians over the rounds, and medians of ratios within a round.

D: images/s read, decoded and resized with all cores. M: images/s through the bare onnxruntime session with all cores,
in one call or in one call per core, whichever is faster. L = 1 / (1/D + 1/M) is what a perfect pipeline on the same
cores would reach.
"""

import argparse
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from batchland.system.cores import usable_cores
from benchmarks.contenders import WAYS
from benchmarks.machine import RESULTS, cpu, timed, versions
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos, photo_files


def main() -> None:
    options = _options()
    model = find_model(options.model, options.work)
    images = options.images or draw_photos(options.work / "photos", options.size, options.count)
    rounds = []
    for number in range(options.rounds):
        found = {way: _run_way(way, images, model) for way in options.ways}
        found["cli"] = _run_cli(images, model)
        found["first"] = _run_cli(_one_image(images, options.work), model)
        found["help"] = timed([sys.executable, "-m", "batchland", "--help"])
        rounds.append(found)
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    result = _facts(options, images, rounds)
    text = _markdown(result)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    name = f"score-{Path(options.model).stem}-{options.images.name if options.images else options.size}"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scratch", help="scratch, transfer (both with random weights) or a file")
    parser.add_argument("--images", type=Path, help="a folder of photos; default: drawn ones")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the drawn photos")
    parser.add_argument("--count", type=int, default=1000, help="of the drawn photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    return parser.parse_args()


def _one_image(images: Path, work: Path) -> Path:
    """A folder with one photo: scoring it is start-up and a first prediction."""
    folder = work / "one"
    folder.mkdir(exist_ok=True)
    photo = photo_files(images)[0]
    for other in folder.iterdir():
        other.unlink()
    shutil.copyfile(photo, folder / photo.name)
    return folder


def _run_way(way: str, images: Path, model: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.contenders", way, str(images), str(model), str(usable_cores())]
    run = timed(command)
    return run | json.loads(run["output"].splitlines()[-1])


def _run_cli(images: Path, model: Path) -> dict[str, float]:
    out = model.parent / "predictions.parquet"
    command = [sys.executable, "-m", "batchland", "score", str(images), "--model", str(model), "--out", str(out)]
    return timed([*command, "--device", "cpu", "--overwrite"])


def _facts(options: argparse.Namespace, images: Path, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    for found in rounds:
        for run in found.values():
            run.pop("output", None)
            if "seconds" in run:
                run["rate"] = run["images"] / run["seconds"]
        total = len(photo_files(images))
        found["cli"]["rate"] = total / found["cli"]["wall"]
        if {"decode", "session", "sessions"} <= found.keys():
            bare = max(found["session"]["rate"], found["sessions"]["rate"])
            found["limit"] = {"rate": 1 / (1 / found["decode"]["rate"] + 1 / bare)}
    return {
        "command": "python -m benchmarks.score " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).isoformat("T", "minutes"),
        "model": options.model,
        "images": total,
        "cores": usable_cores(),
        "cpu": cpu(),
        "versions": versions(),
        "rounds": rounds,
    }


_NAMES = {
    "decode": "D: decode alone", "session": "M: bare session, one call with all cores",
    "sessions": "M: bare session, one call per core", "limit": "L = 1/(1/D + 1/M)",
    "batchland": "batchland score, without start-up", "cli": "batchland score, whole process",
    "imagefolder": "ImageFolder + DataLoader + torch", "timm": "timm's inference loop",
    "naive": "onnxruntime, one by one",
}  # fmt: skip


def _markdown(result: dict[str, Any]) -> str:
    rounds = result["rounds"]

    def of(way: str, figure: str) -> float | None:
        return median(run[way][figure] for run in rounds) if figure in rounds[0].get(way, {}) else None

    def ratio(way: str, to: str) -> float | None:
        if to not in rounds[0] or way not in rounds[0]:
            return None
        return median(run[way]["rate"] / run[to]["rate"] for run in rounds)

    def whole(way: str) -> float | None:
        """How many times longer the whole process took than `batchland score`."""
        return median(run[way]["wall"] / run["cli"]["wall"] for run in rounds) if "wall" in rounds[0][way] else None

    lines = [
        f"# Scoring {result['images']} images with {result['model']}, {result['date']}",
        "",
        f"`{result['command']}`: {result['cores']} cores, {result['cpu']}; {len(rounds)} rounds, medians. "
        + ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        + ".",
        "",
        "| way | images/s | of L | batchland is faster by | the same, whole processes | wall s | CPU s | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, name in _NAMES.items():
        if way not in rounds[0]:
            continue
        peer = way in ("imagefolder", "timm", "naive")
        faster = ratio("batchland", way) if peer else None
        cells = [
            _cell(of(way, "rate"), ".1f"), _cell(ratio(way, "limit"), ".3f"), _cell(faster, ".2f", "x"),
            _cell(whole(way) if peer else None, ".2f", "x"), _cell(of(way, "wall"), ".2f"),
            _cell(of(way, "cpu"), ".2f"), _cell(of(way, "peak_mb"), ".0f"),
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"`batchland --help`: {of('help', 'wall'):.2f} s. One image, start-up included: {of('first', 'wall'):.2f} s.",
        "Rates are without start-up, except for the whole process; peak MB is that of the largest process.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


if __name__ == "__main__":
    main()
