"""The speed of scoring on a GPU, compared with the limits of decoding and of the GPU, and with torch.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --models scratch --sizes small --count 64 --seconds 0.5   # all but the GPU

D: images/s read, decoded and resized by all cores. M: images/s through the model as it is scored with, on pixels that
lie in memory. A perfect pipeline reaches min(D, M). Each way runs as a separate process with a time limit; all take
turns, round after round; the tables give medians. The files are written again after each way.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gpu_ways import OF_IMAGES, WAYS
from benchmarks.machine import RESULTS, describe_machine, versions
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos

NAMES = {
    "decode": "D: decode, all cores", "decode_cuda": "D: decode on the GPU", "leave": "read, for the GPU to decode",
    "leave_checked": "read and checked, for the GPU to decode", "fp32": "M: fp32", "tf32": "M: tf32", "fp16": "M: fp16",
    "tensorrt": "M: fp16, TensorRT", "torch_fp32": "torch eager, channels last, fp32",
    "torch_fp16": "torch eager, channels last, fp16", "torch_compiled_fp16": "torch.compile, channels last, fp16",
    "pipeline_fp32": "batchland score, fp32", "pipeline_fp16": "batchland score, fp16",
    "pipeline_fp32_decode_cuda": "batchland score --decode cuda, fp32",
    "pipeline_fp16_decode_cuda": "batchland score --decode cuda, fp16",
}  # fmt: skip

Found = dict[str, Any]
Rounds = list[dict[str, Found]]


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    result: dict[str, Any] = {
        "command": "python -m benchmarks.gpu " + " ".join(sys.argv[1:] if arguments is None else arguments),
        "date": datetime.now(UTC).isoformat("T", "minutes"),
        "device": options.device,
        "gpu": gpu_facts(),
        "machine": describe_machine(),
        "versions": versions(),
        "batch_size": options.batch_size,
        "models": {},
    }
    for model in options.models:
        for found in _measure(model, options):
            result["models"][model] = found
            _write(result, options)
    print(markdown(result))


def _write(result: dict[str, Any], options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"gpu-{options.device.replace(':', '-').replace(',', '-')}"
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(markdown(result))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="as `batchland score` takes it")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["scratch", "transfer"],
        help="scratch, transfer (both with random weights) or files; NAME.onnx has NAME-fp16.onnx beside it",
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "12mp"], help="of the drawn photos")
    parser.add_argument("--count", type=int, default=4000, help="of the drawn photos")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each rate is measured for")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one way may take in one round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written")
    return parser.parse_args(arguments)


def gpu_facts() -> list[dict[str, str]]:
    """Name, driver and memory of each GPU, as nvidia-smi reports them; empty without a GPU."""
    fields = ("name", "driver_version", "memory.total", "power.limit")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [dict(zip(fields, line.split(", "), strict=True)) for line in output.splitlines()]


def _measure(model: str, options: argparse.Namespace) -> Iterator[dict[str, Rounds]]:
    """After each way, what was found so far: rounds of the ways without images under `model`, others by size."""
    path = find_model(model, options.work)
    half = path.with_stem(f"{path.stem}-fp16")
    files = {"model": path, "half": half if half.exists() else find_model(half.stem, options.work)}
    ways = {"model": [way for way in options.ways if way not in OF_IMAGES]}
    folders = {"model": options.work}
    for size in options.sizes:
        ways[size] = [way for way in options.ways if way in OF_IMAGES]
        folders[size] = draw_photos(options.work / "photos", size, options.count)
    found: dict[str, Rounds] = {part: [] for part in ways}
    for number in range(options.rounds):
        for part, names in ways.items():
            found[part].append({})
            for way in names:
                found[part][-1][way] = _run(way, files, folders[part], options)
                yield found
        print(f"{model}: round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    yield found


def _run(way: str, files: dict[str, Path], images: Path, options: argparse.Namespace) -> Found:
    """The figures of a way, or the reason why it cannot run here."""
    given = {
        "model": str(files["model"]), "half": str(files["half"]), "images": str(images), "device": options.device,
        "batch_size": options.batch_size, "seconds": options.seconds,
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.gpu_ways", way, json.dumps(given)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {options.limit:g} s"}
    if process.returncode:
        return {"error": (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]}
    found: Found = json.loads(process.stdout.splitlines()[-1])
    return found


def markdown(result: dict[str, Any]) -> str:
    gpus = "; ".join(", ".join(gpu.values()) for gpu in result["gpu"]) or "no GPU"
    lines = [
        f"# Scoring on {result['device']}, {result['date']}",
        "",
        f"`{result['command']}`: {gpus}; {result['machine']}. Batches of {result['batch_size']}.",
        "",
    ]
    for model, parts in result["models"].items():
        lines += _of_model(model, parts["model"])
        for size, rounds in parts.items():
            if size != "model":
                lines += _of_size(model, size, parts["model"], rounds)
    return "\n".join(lines) + "\n"


def _of_model(model: str, rounds: Rounds) -> list[str]:
    lines = [f"## {model}", "", "| way | images/s | GPU busy | settings or reason |", "| --- | ---: | ---: | --- |"]
    for way in (way for way in NAMES if rounds and way in rounds[0]):
        settings = rounds[0][way].get("settings") or {}
        remark = rounds[0][way].get("error") or ", ".join(f"{name}={value}" for name, value in settings.items())
        rate, busy = figure(rounds, way, "images_per_second"), figure(rounds, way, "gpu_percent")
        lines.append(f"| {NAMES[way]} | {_cell(rate, '.0f')} | {_cell(busy, '.0f', ' %')} | {remark} |")
    pageable, pinned = (figure(rounds, "copies", f"{kind}_gb_per_second") for kind in ("pageable", "pinned"))
    if pinned is not None:
        lines += ["", f"Copies to the device: {pageable:.1f} GB/s, out of pinned memory {pinned:.1f} GB/s."]
    return [*lines, ""]


def _of_size(model: str, size: str, of_model: Rounds, rounds: Rounds) -> list[str]:
    lines = [
        f"### {model}, {SIZES[size].width} x {SIZES[size].height}",
        "",
        "| way | images/s | of min(D, M) | GPU busy |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way in (way for way in NAMES if rounds and way in rounds[0]):
        rate = figure(rounds, way, "images_per_second")
        share = None
        if rate is not None and (limit := _limit(way, of_model, rounds)) is not None:
            share = rate / limit
        busy = figure(rounds, way, "gpu_percent")
        error = rounds[0][way].get("error", "")
        lines.append(
            f"| {NAMES[way]} {error} | {_cell(rate, '.0f')} | {_cell(share, '.2f')} | {_cell(busy, '.0f', ' %')} |"
        )
    same = {kind: figure(rounds, "agreement", f"{kind}_same_top1") for kind in ("fp32", "fp16")}
    if same["fp32"] is not None and same["fp16"] is not None:
        shares = ", ".join(f"{kind} {share:.2%}" for kind, share in same.items())
        images = figure(rounds, "agreement", "images")
        lines += ["", f"Same first class as fp32 on the CPU, of {images:.0f} images: {shares}."]
    return [*lines, ""]


def _limit(way: str, of_model: Rounds, rounds: Rounds) -> float | None:
    """min(D, M) of a pipeline, as far as both are known."""
    if not way.startswith("pipeline_"):
        return None
    precision = way.split("_")[1]
    decode = figure(rounds, "decode_cuda" if way.endswith("_cuda") else "decode", "images_per_second")
    model = figure(of_model, precision, "images_per_second")
    return None if decode is None or model is None else min(decode, model)


def figure(rounds: Rounds, way: str, name: str) -> float | None:
    """The median over the rounds; None where there is none."""
    values = [each[way][name] for each in rounds if name in each.get(way, {})]
    return median(values) if values else None


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


if __name__ == "__main__":
    main()
