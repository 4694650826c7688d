"""`batchland calibrate`: store thresholds with a guarantee on a model's card."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, Flag, build, complete_path, labels_option, options_of


@command(
    tables=True,
    epilog='Example: batchland calibrate preds.parquet --labels data/test --model m.onnx --promise "error <= 2%" '
    "--out calibrated.onnx",
)
@click.argument("predictions", metavar="PREDS", shell_complete=complete_path)
@labels_option
@click.option("-m", "--model", required=True, type=PATH, help="The model that scored PREDS.")
@click.option("-o", "--out", required=True, type=PATH, help="The ONNX file to write.")
@options_of(
    "batchland.evaluation.calibrate:CalibrateOptions",
    Flag("promise", metavar="PROMISE"),
    "each_class",
    Flag("sets", metavar="SHARE"),
    "known",
    "confidence",
    Flag("strip_prefix", metavar="TEXT"),
    "ignore_unknown_classes",
)
def calibrate(predictions: str, labels: Path, model: Path, out: Path, **values: Any) -> None:
    """Store on a model's card which of its answers to accept.

    Chooses the probability from which an answer is accepted, so that few accepted answers are wrong. The labelled
    images must be like those that will be scored, and must not have been used for training. Scoring with the new file
    writes a column `decision`: accept or ask. If there are too few images to keep the promise, nothing is written.

    With --known, the model also detects strangers: images of none of its classes. Scoring then writes a column `known`,
    the share of the labelled images that differ from the others at least as much as this image. PREDS must have
    features (score --features).
    """
    from batchland.evaluation.calibrate import CalibrateOptions
    from batchland.evaluation.calibrate import calibrate as run
    from batchland.system.text import count, percent

    result = run(predictions, labels, model, out, build(CalibrateOptions, values))
    rule, sets = result.card.decision, result.card.prediction_sets
    if result.guarantee and rule and rule.threshold is not None and result.guarantee.rule:
        found = result.guarantee.rule
        click.echo(
            f"{rule.promise}: accept answers of at least {rule.threshold}: {percent(found.coverage)} of the labelled "
            f"images, {count(found.wrong)} of {count(found.accepted)} wrong"
        )
    elif result.guarantee and rule:
        classes = f"{count(len(rule.per_class))} of {count(len(result.card.classes))} classes"
        click.echo(f"{rule.promise}: answers of {classes} are accepted, each with its own threshold")
    if sets:
        click.echo(f"prediction sets of {sets.coverage:.0%}: classes of at least {sets.threshold}")
    if known := result.card.known:
        click.echo(f"known: {count(known.images)} different labelled images; a stranger is farther than 95% of them")
    click.echo(f"{out}: calibrated; score with it")
