"""The command line: parse, call, print, turn errors into exit codes. Nobody imports this module.

Imports of everything heavy happen inside the command that needs it, so that `--help` is quick.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland import __version__
from batchland.errors import BatchlandError

if TYPE_CHECKING:
    from batchland.scoring import RunSummary

_log = logging.getLogger("batchland")


class _Commands(click.Group):
    """Errors of ours become one line on stderr and their exit code; a traceback means a bug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BatchlandError as error:
            click.echo(f"batchland: {error}", err=True)
            ctx.exit(error.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order of a day's work, not of the alphabet


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchland")
@click.option("-v", "--verbose", is_flag=True, help="Log details, too.")
def main(verbose: bool) -> None:
    """Train image classifiers, score folders of images with them, and evaluate the predictions.

    \b
    batchland score photos/ --out preds.parquet
    batchland evaluate preds.parquet --labels data/test --out report/
    """
    form = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(format=form, stream=sys.stderr, level=logging.WARNING)
    _log.setLevel(logging.DEBUG if verbose else logging.INFO)


def _example(text: str) -> str:
    return f"Example: {text}"


@main.command(epilog=_example("batchland score photos/ --out preds.parquet --model models/scratch.onnx"))
@click.argument("images", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="NAME.parquet for one file; any other name is a folder of parts.",
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
@click.option("--num-workers", type=click.IntRange(1), help="Decoding threads.  [default: one per usable core]")
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
    help="onnxruntime's threads on the CPU.  [default: one per usable core]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="`auto` takes CUDA where it works and says so where it does not; `cuda` never falls back.",
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
@click.option("--all-files", is_flag=True, help="Score files of every extension.")
@click.option("--follow-links", is_flag=True, help="Follow links to folders.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--restart", is_flag=True, help="Discard what an interrupted run has left, instead of resuming it.")
def score(images: Path, out: Path, max_failed: str | None, **options: Any) -> None:
    """Score every image below DIR and write a table of top-k predictions.

    Every image gives one row, `ok` or `failed`, in a stable order. If the run is interrupted, the same command goes on
    where it stopped.
    """
    from batchland.progress import ScoreProgress
    from batchland.scoring import FailureLimit, ScoreOptions, find_model
    from batchland.scoring import score as run
    from batchland.source import list_images

    limit = FailureLimit.parse(max_failed) if max_failed else None
    options["model"] = find_model(options["model"])
    _log.info("model: %s", options["model"])
    listing = {"all_files": options["all_files"], "follow_links": options["follow_links"]}
    with ScoreProgress(lambda: sum(1 for _ in list_images(images, **listing))) as progress:
        summary = run(images, out, ScoreOptions(**options), on_progress=progress.update)
    if summary.fallback:
        _log.warning("device auto: ran on the CPU, because %s", summary.fallback)
    click.echo(_score_paragraph(images, summary))
    if limit:
        limit.check(summary.manifest.counts)


def _score_paragraph(images: Path, summary: "RunSummary") -> str:
    manifest = summary.manifest
    counts, seconds = manifest.counts, manifest.seconds
    codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
    resumed = f", {manifest.resumed_images} of them by an earlier run" if manifest.resumed_images else ""
    return (
        f"Scored {counts.listed} images of {images}{resumed} with {manifest.model.name} on {manifest.device} "
        f"({manifest.provider}) in {seconds.total:.1f} s, {manifest.images_per_second:.1f} images/s: "
        f"{counts.ok} ok, {counts.failed} failed{f' ({codes})' if codes else ''}. "
        f"Seconds: list {seconds.list:.2f}, read {seconds.read:.2f} and decode {seconds.decode:.2f} (summed over "
        f"workers), infer {seconds.infer:.2f}, write {seconds.write:.2f}. "
        f"Predictions: {_shown(summary.out)}; manifest: {_shown(summary.manifest_path)}."
    )


def _shown(path: Path) -> Path:
    """Relative to here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@main.command(epilog=_example("batchland inspect models/scratch.onnx"))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Print the card of an ONNX model: classes, preprocessing, where it comes from."""
    from batchland.session import open_session

    session = open_session(model, "cpu")
    if as_json:
        click.echo(session.card.model_dump_json(indent=2))
        return
    card = session.card
    rows = {"name": card.name, "architecture": card.architecture, "created": card.created_at, "sha256": session.sha256}
    rows["preprocess"] = ", ".join(f"{key} {value}" for key, value in card.preprocess if value is not None)
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in card.versions.items()) or "unknown"
    if card.training:
        kept = card.training.model_dump(exclude={"settings"}) | card.training.settings
        rows["training"] = ", ".join(f"{key} {value}" for key, value in kept.items())
    if card.data:
        rows["data"] = ", ".join(f"{key} {value}" for key, value in card.data)
    for key, value in rows.items():
        click.echo(f"{key:13} {value}")
    click.echo(f"{'classes':13} {len(card.classes)}")
    for index, name in enumerate(card.classes):
        click.echo(f"{index:13} {name.label}  ({name.folder})")


if __name__ == "__main__":
    main()
