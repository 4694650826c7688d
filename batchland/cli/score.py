"""`batchland score`: a folder of images to a table of predictions."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from batchland.predictions.schema import Manifest
    from batchland.scoring.score import RunSummary

_NODES_SHOWN: Final = 3
_log = logging.getLogger("batchland")


@click.command(epilog="Example: batchland score photos/ --out preds.parquet --model models/scratch.onnx")
@click.argument("images", metavar="[DIR]", required=False)
@click.option(
    "--images", "image_list", metavar="LIST", help="Score what a text, CSV or Parquet file lists; - for stdin."
)
@click.option(
    "-o",
    "--out",
    required=True,
    help="NAME.parquet for one file; any other name is a folder of parts. A path or a URL.",
)
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path),
    help="ONNX file with a batchland card.  [default: $BATCHLAND_MODEL, models/transfer.onnx or models/scratch.onnx]",
)
@click.option("-k", "--top-k", type=click.IntRange(1), default=5, show_default=True, help="Choices kept per image.")
@click.option(
    "-b", "--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per call of the model."
)
@click.option(
    "--num-workers",
    type=click.IntRange(1),
    help="Decoding threads.  [default: one per usable core, more where images are long waited for]",
)
@click.option(
    "--prefetch-factor",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Batches prepared ahead, by all workers together.",
)
@click.option(
    "--intra-op-threads",
    type=click.IntRange(1),
    help="onnxruntime's threads per call on the CPU.  [default: the cores, divided among up to four calls]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N,...]|tensorrt[:N,...]",
    help="`auto` takes CUDA where it works and says so where not; the others never fall back. cuda:all: every GPU.",
)
@click.option(
    "--decode",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Who decodes JPEGs: the CPU's cores, or the GPUs that the model runs on.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who decodes and infers: this process, or Ray, on one machine or many.",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT|auto",
    help="Ray cluster to use.  [default: $RAY_ADDRESS, else Ray on this machine, for this run]",
)
@click.option("--max-failed", metavar="N|P%", help="End with exit code 3 if more images failed than this.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up an image that takes longer to read and decode.",
)
@click.option(
    "--part-size", type=click.IntRange(1), default=8192, show_default=True, help="Images per part, as a folder."
)
@click.option(
    "--include", metavar="PATTERN", multiple=True, help="Score only images that match, as in .gitignore. Repeatable."
)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out images that match. Repeatable.")
@click.option("--all-files", is_flag=True, help="Score files of every extension.")
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--restart", is_flag=True, help="Discard what an interrupted run has left, instead of resuming it.")
@click.option("--retry-failed", is_flag=True, help="Score the failed rows of an existing output again, and only those.")
@click.option("--shard", metavar="I/N", help="Score only shard I (from 0) of N, into a folder of --out; then `merge`.")
def score(images: str | None, out: str, max_failed: str | None, shard: str | None, **options: Any) -> None:
    """Score every image of DIR: a table of top-k predictions.

    DIR is a folder, or names tar files (photos-{000..099}.tar) or Parquet files that hold images; any of them may be a
    URL (s3, gs, abfs, hdfs).

    Every image gives one row, `ok` or `failed`, in a stable order. If the run is interrupted, the same command goes on
    where it stopped. When what made images fail is mended, it scores those again with --retry-failed.
    """
    from batchland.scoring.listing import open_listing
    from batchland.scoring.options import FailureLimit, ScoreOptions, find_model, unlisted_folders
    from batchland.scoring.progress import ScoreProgress
    from batchland.scoring.score import score as run

    limit = FailureLimit.parse(max_failed) if max_failed else None
    options["model"] = find_model(options["model"])
    _log.info("model: %s", options["model"])
    how = ScoreOptions(**options, shard=shard)
    listing = open_listing(images, how, image_list=how.image_list)
    with ScoreProgress(listing, how.shard) as progress:
        summary = run(listing, out, how, on_progress=progress.update)
    if summary.fallback:
        _log.warning("device auto: ran on the CPU, because %s", summary.fallback)
    if summary.done_before:
        click.echo(f"Shard {how.shard} is scored already, in {_shown(summary.out)}; --overwrite scores it again.")
    else:
        click.echo(_score_paragraph(images or options["image_list"], summary))
    if limit:
        limit.check(summary.manifest.counts)
    elif missing := unlisted_folders(summary.manifest.counts):
        _log.warning(missing)


def _score_paragraph(images: str, summary: "RunSummary") -> str:
    from batchland.system.names import display_path

    manifest = summary.manifest
    counts, seconds = manifest.counts, manifest.seconds
    codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
    resumed = f", {manifest.resumed_images} of them by an earlier run" if manifest.resumed_images else ""
    resumed += f", {manifest.kept_images} of them kept from before" if manifest.kept_images else ""
    return (
        f"Scored {counts.listed} images of {display_path(images)}{resumed} with {manifest.model.name} "
        f"on {manifest.device} ({manifest.provider}) in {seconds.total:.1f} s, "
        f"{manifest.images_per_second:.1f} images/s: {counts.ok} ok, "
        f"{counts.failed} failed{f' ({codes})' if codes else ''}. {_passed_over(manifest)}{_on_gpus(manifest)}"
        f"Seconds: list {seconds.list:.2f}, read {seconds.read:.2f}, decode {seconds.decode:.2f}, infer "
        f"{seconds.infer:.2f} (these three summed over threads), write {seconds.write:.2f}. "
        f"Predictions: {_shown(summary.out)}; manifest: {_shown(summary.manifest_path)}."
    )


def _passed_over(manifest: "Manifest") -> str:
    """What was not listed, but for what nobody expects to be: hidden files, and those of other extensions."""
    told = ", ".join(
        f"{kind} {count}"
        for kind, count in manifest.ignored.items()
        if kind not in ("hidden", "no extension") and not kind.startswith(".")
    )
    return f"Passed over: {told}. " if told else ""


def _on_gpus(manifest: "Manifest") -> str:
    """Of a run on GPUs: what they did not do, of the model and of the decoding."""
    execution = manifest.execution
    if execution is None:
        return ""
    told = ""
    if names := execution.cpu_nodes:
        more = f" and {len(names) - _NODES_SHOWN} more" if len(names) > _NODES_SHOWN else ""
        told = (
            f"Left to the CPU were {len(names)} of the model's {sum(execution.nodes.values())} nodes: "
            f"{', '.join(names[:_NODES_SHOWN])}{more}. "
        )
    if manifest.decoder:
        scored = manifest.counts.listed - manifest.resumed_images - manifest.kept_images
        told += f"JPEGs decoded on the GPU: {execution.decoded_on_gpu} of {scored} images, by {manifest.decoder}. "
    return told


def _shown(path: Path | str) -> Path | str:
    """Relative to here, where it lies below."""
    if isinstance(path, str):
        return path
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
