"""The cost of a billion images: the tables of docs/scale.md, computed from figures that you can replace.

    python -m benchmarks.billion
    python -m benchmarks.billion --gpu-images-per-second 2500 --gpus 32 --kilobytes 250

Figures with a star in the first table are assumptions, the others were measured (benchmarks/results).
"""

import argparse
from math import ceil
from typing import NamedTuple

from batchland.predictions.schema import WrittenFile


class Figure(NamedTuple):
    value: float
    unit: str
    source: str
    """Where it is from; `*` for an assumption."""


FIGURES = {
    "images": Figure(1e9, "", "*"),
    "kilobytes": Figure(100, "kB an image, mean", "*"),
    "images_per_tar": Figure(10_000, "images in a tar file", "*"),
    "gpus": Figure(64, "GPUs, one shard each", "*"),
    "gpu_images_per_second": Figure(1000, "images/s of one GPU with the model", "*, no GPU has been measured"),
    "decoded_per_core": Figure(400, "500 x 375 JPEGs/s decoded by a core", "score-*-small.md, D over 2 cores"),
    "cpu_images_per_core": Figure(12.5, "images/s of ResNet50 on a core", "score-transfer-small.md, over 2 cores"),
    "gpu_hour": Figure(1.00, "$ for a GPU hour, with its cores", "*"),
    "core_hour": Figure(0.04, "$ for a core hour", "*"),
    "list_price": Figure(0.005, "$ for 1,000 LIST or PUT requests", "*, S3 Standard, us-east-1, November 2026"),
    "get_price": Figure(0.0004, "$ for 1,000 GET or HEAD requests", "*, the same"),
    "inventory_price": Figure(0.0025, "$ for a million objects in an inventory", "*, the same"),
    "list_seconds": Figure(0.1, "s for a LIST request of 1,000 keys", "*"),
    "names_per_second": Figure(300_000, "names/s dealt out by one process", "shards.md"),
    "planned_per_second": Figure(280_000, "keys/s planned by one process", "plans.md"),
    "plan_bytes": Figure(2.2, "bytes a key in a plan", "plans.md, keys in order"),
    "parts_per_second": Figure(1000, "parts/s through the driver of Ray", "plans.md, on a busy machine"),
    "range_megabytes": Figure(8, "MB a GET of a tar file", "*"),
    "row_bytes": Figure(400, "bytes a row of predictions", "268 landmark photos, 50 classes, all columns"),
    "part_size": Figure(8192, "images in a part", "the default of --part-size"),
    "merged_per_second": Figure(16_000, "rows/s merged by --out, with all columns", "shards.md, CPU seconds"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, figure in FIGURES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=figure.value, help=figure.unit)
    print(tables(**vars(parser.parse_args())))


def tables(**changes: float) -> str:
    """All tables, as Markdown."""
    of = {name: figure.value for name, figure in FIGURES.items()} | changes
    blocks = [_figures(of), _computing(of), _requests(of), _sizes(of)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _figures(of: dict[str, float]) -> list[str]:
    rows = [f"| `{name}` | {of[name]:,.10g} | {each.unit} | {each.source} |" for name, each in FIGURES.items()]
    return ["| figure | value | unit | from |", "| --- | ---: | --- | --- |", *rows]


def _computing(of: dict[str, float]) -> list[str]:
    gpu_seconds = of["images"] / of["gpu_images_per_second"]
    core_seconds = of["images"] / of["cpu_images_per_core"]
    cores_a_gpu = of["gpu_images_per_second"] / of["decoded_per_core"]
    hours = gpu_seconds / of["gpus"] / 3600
    rate = of["gpu_images_per_second"] * of["kilobytes"] * 8 / 1e6
    return [
        "| computing | formula | |",
        "| --- | --- | ---: |",
        f"| GPU hours | images / gpu_images_per_second / 3600 | {gpu_seconds / 3600:,.0f} |",
        f"| hours on {of['gpus']:.0f} GPUs | the same / gpus | {hours:,.1f} |",
        f"| $ | GPU hours x gpu_hour | {gpu_seconds / 3600 * of['gpu_hour']:,.0f} |",
        f"| cores that feed one GPU | gpu_images_per_second / decoded_per_core | {ceil(cores_a_gpu)} |",
        f"| Gbit/s into one GPU's machine | gpu_images_per_second x kilobytes | {rate:.1f} |",
        f"| core hours, without a GPU | images / cpu_images_per_core / 3600 | {core_seconds / 3600:,.0f} |",
        f"| $, without a GPU | core hours x core_hour | {core_seconds / 3600 * of['core_hour']:,.0f} |",
    ]


def _requests(of: dict[str, float]) -> list[str]:
    """Reading an object is a HEAD and a GET. A plan of tar files reads their blocks for the headers, too."""
    listing = of["images"] / 1000 * of["gpus"]
    tars = of["images"] / of["images_per_tar"]
    reads = 2 * of["images"]
    blocks = of["images"] * of["kilobytes"] / 1000 / of["range_megabytes"]
    images, planned = of["images"], of["planned_per_second"]
    ways = [
        ("objects, each shard lists all", listing, reads, 0.0, listing / of["gpus"], images / of["names_per_second"]),
        ("objects, planned once", images / 1000, reads, 0.0, images / 1000, images / planned),
        ("objects, planned by an inventory", 0.0, reads, images / 1e6, 0.0, images / planned),
        ("tar files, planned once", tars / 1000, 2 * tars + 2 * blocks, 0.0, tars / 1000, images / planned),
    ]
    lines = [
        "| source | LIST requests | HEAD and GET requests | $ for them | hours to list | minutes to divide |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, lists, gets, million_listed, own_lists, seconds in ways:
        dollars = lists / 1000 * of["list_price"] + gets / 1000 * of["get_price"]
        dollars += million_listed * of["inventory_price"]
        hours, minutes = own_lists * of["list_seconds"] / 3600, seconds / 60
        lines.append(f"| {name} | {lists:,.0f} | {gets:,.0f} | {dollars:,.2f} | {hours:,.1f} | {minutes:,.1f} |")
    return lines


def _sizes(of: dict[str, float]) -> list[str]:
    images, shards = of["images"], of["gpus"]
    parts = ceil(images / of["part_size"])
    merging = images / of["merged_per_second"] / 3600
    entry = len(
        WrittenFile(path="part-000000.parquet", rows=8192, bytes=10**6, sha256="0" * 64).model_dump_json(indent=4)
    )
    return [
        "| sizes | formula | |",
        "| --- | --- | ---: |",
        f"| images, TB read | images x kilobytes | {images * of['kilobytes'] / 1e9:,.0f} |",
        f"| predictions, GB | images x row_bytes | {images * of['row_bytes'] / 1e9:,.1f} |",
        f"| parts | images / part_size | {parts:,} |",
        f"| a plan, GB | images x plan_bytes | {images * of['plan_bytes'] / 1e9:,.1f} |",
        f"| minutes of Ray's driver | parts / parts_per_second / 60 | {parts / of['parts_per_second'] / 60:,.1f} |",
        f"| a part, kB | part_size x row_bytes | {of['part_size'] * of['row_bytes'] / 1e3:,.0f} |",
        f"| a shard's manifest, kB | parts / gpus x {entry} bytes | {parts / shards * entry / 1e3:,.0f} |",
        f"| manifest of a merged folder, MB | parts x 215 bytes, shards.md | {parts * 215 / 1e6:,.1f} |",
        f"| hours to merge, in one process | images / merged_per_second / 3600 | {merging:,.1f} |",
    ]


if __name__ == "__main__":
    main()
