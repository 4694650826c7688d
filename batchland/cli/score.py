"""`batchland score`: a folder of images to a table of predictions."""

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from batchland.cli.command import command
from batchland.cli.failures import max_failed_option, report_failures
from batchland.cli.options import Flag, build, complete_path, json_option, options_of, out_option, print_json
from batchland.system.text import accepted_and_asked, count, counted, first_few, ignored_files

if TYPE_CHECKING:
    from batchland.predictions.schema import Manifest
    from batchland.scoring.score import RunSummary

_NODES_SHOWN: Final = 3
_log = logging.getLogger("batchland")


@command(epilog="Example: batchland score photos/ --out preds.parquet --model models/scratch.onnx")
@click.argument("images", metavar="[DIR]", required=False, shell_complete=complete_path)
@out_option
@options_of(
    "batchland.scoring.options:ScoreOptions",
    Flag("image_list", "--images", metavar="LIST"),
    Flag("model", "-m"),
    Flag("top_k", "-k"),
    "probabilities",
    "signals",
    "features",
    Flag("batch_size", "-b"),
    "num_workers",
    "decode_processes",
    "prefetch_factor",
    "intra_op_threads",
    Flag("device", metavar="auto|cpu|cuda[:N,...]|tensorrt[:N,...]"),
    "decode",
    "engine",
    Flag("ray_address", metavar="HOST:PORT|auto"),
    Flag("timeout", metavar="SECONDS"),
    "part_size",
    "private_hosts",
    Flag("plan", metavar="PLAN"),
    Flag("include", metavar="PATTERN"),
    Flag("exclude", metavar="PATTERN"),
    "all_files",
    "follow_links",
    "overwrite",
    "restart",
    "retry_failed",
    Flag("reuse", metavar="PREDICTIONS"),
    Flag("shard", metavar="I/N"),
)
@max_failed_option
@json_option
def score(images: str | None, out: str, max_failed: str | None, as_json: bool, **values: Any) -> None:
    """Score every image of DIR into a table of top-k predictions.

    DIR is a folder, or a pattern of tar or zip files (photos-{000..099}.tar) or of Parquet files with images; each may
    be a URL (s3, gs, abfs, hdfs).

    Every image gives one row, `ok` or `failed`, in a stable order. The same command resumes an interrupted run. Once
    the cause of failed images is fixed, --retry-failed scores those again. --json prints the manifest.
    """
    from batchland.scoring.options import FailureLimit, ScoreOptions, find_model
    from batchland.system.cores import usable_cores

    model = find_model(values["model"])
    options = build(ScoreOptions, values | {"model": model})
    if options.engine == "local" and options.decode == "cpu":
        from batchland.models.session import begin_opening

        threads = options.threads_per_call(usable_cores())
        begin_opening(model, options.device, intra_op_threads=threads, features=options.features)
    from batchland.scoring.listing import open_listing  # while a thread opens the model
    from batchland.scoring.plan.planned_run import PlannedListing
    from batchland.scoring.progress import ScoreProgress
    from batchland.scoring.score import score as run
    from batchland.system.arrow import keep_pandas_out

    keep_pandas_out()
    limit = FailureLimit.parse(max_failed) if max_failed else None
    _log.info("model: %s", model)
    listing = (
        PlannedListing(images, options)
        if options.plan
        else open_listing(images, options, image_list=options.image_list)
    )
    with ScoreProgress(listing, options.shard) as progress:
        summary = run(listing, out, options, on_progress=progress.update)
    if summary.fallback:
        _log.warning("device auto: ran on the CPU, because %s", summary.fallback)
    if as_json:
        print_json(summary.manifest)
    elif summary.done_before:
        click.echo(
            f"Shard {options.shard} is scored already, in {_relative(summary.out)}; --overwrite scores it again."
        )
    else:
        click.echo(_score_paragraph(images or options.image_list or options.plan or "", summary))
    report_failures(summary.manifest, limit)


def _score_paragraph(images: str, summary: "RunSummary") -> str:
    from batchland.system.names import display_path

    manifest = summary.manifest
    counts, seconds = manifest.counts, manifest.seconds
    codes = ", ".join(f"{code} {count(number)}" for code, number in counts.failed_by_code.items())
    origins = {
        "by an earlier run": manifest.resumed_images,
        "kept from the earlier output": manifest.kept_images,
        "with rows of earlier predictions": manifest.reused_images,
        "copies": manifest.copied_images,
    }
    origin = ", ".join(f"{count(number)} of them {origin}" for origin, number in origins.items() if number)
    taken = f" ({origin})" if origin else ""
    return (
        f"Scored {counted(counts.listed, 'image')} of {display_path(images)}{taken} with {manifest.model.name} "
        f"on {manifest.device} ({manifest.provider}) in {seconds.total:.1f} s, "
        f"{manifest.images_per_second:.1f} images/s: {count(counts.ok)} ok, "
        f"{count(counts.failed)} failed{f' ({codes})' if codes else ''}{accepted_and_asked(counts.decisions)}"
        f"{ignored_files(manifest.ignored)}. "
        f"{_gpu_sentences(manifest)}"
        f"Wall seconds: list {seconds.list:.2f}, read {seconds.read:.2f}, decode {seconds.decode:.2f}, infer "
        f"{seconds.infer:.2f} (these three of all threads together, waiting included), write {seconds.write:.2f}. "
        f"Predictions: {_relative(summary.out)}; manifest: {_relative(summary.manifest_path)}."
    )


def _gpu_sentences(manifest: "Manifest") -> str:
    """For a run on GPUs: which model nodes ran on the CPU, and how many JPEGs the GPU decoded."""
    execution = manifest.execution
    if execution is None:
        return ""
    text = ""
    if names := execution.cpu_nodes:
        text = (
            f"The CPU ran {len(names)} of the model's {sum(execution.nodes.values())} nodes: "
            f"{first_few(names, _NODES_SHOWN)}. "
        )
    if manifest.decoder:
        scored = manifest.scored_images
        text += f"JPEGs decoded on the GPU: {execution.decoded_on_gpu} of {scored} images, by {manifest.decoder}. "
    return text


def _relative(path: Path | str) -> Path | str:
    """A path in the working folder, relative to it; other paths and URLs unchanged."""
    if isinstance(path, Path):
        with suppress(OSError, ValueError):  # the current folder was removed; the path is not in it
            return path.relative_to(Path.cwd())
    return path
