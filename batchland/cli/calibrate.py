"""`batchland calibrate`: put thresholds with a guarantee on a model's card."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, Flag, build, complete_path, labels_option, options_of


@command(
    epilog='Example: batchland calibrate preds.parquet --labels data/test --model m.onnx --promise "error <= 2%" '
    "--out calibrated.onnx"
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
    """Let a model say which of its answers to accept.

    Puts on its card from which probability on an answer is accepted, so that few accepted ones are wrong.
    The labelled images must be like those that will be scored, and not those that the model was trained on. Scoring
    with the new file writes a column `decision`: accept or ask. If the images do not suffice to keep the promise,
    nothing is written.

    With --known, the file also tells strangers, images of none of its classes: scoring writes a column `known`, the
    share of the labelled images that are as unlike the others as this image. PREDS must have features (score
    --features).
    """
    from batchland.evaluation.calibrate import CalibrateOptions
    from batchland.evaluation.calibrate import calibrate as run
    from batchland.system.arrow import keep_pandas_out
    from batchland.system.text import count, percent

    keep_pandas_out()
    result = run(predictions, labels, model, out, build(CalibrateOptions, values))
    rule, sets = result.card.decision, result.card.prediction_sets
    if result.guarantee and rule and rule.threshold is not None and result.guarantee.rule:
        found = result.guarantee.rule
        click.echo(
            f"{rule.promise}: accept answers of at least {rule.threshold:g}; of the labelled images "
            f"{percent(found.coverage)}, {count(found.wrong)} of {count(found.accepted)} wrong"
        )
    elif result.guarantee and rule:
        classes = f"{count(len(rule.per_class))} of {count(len(result.card.classes))} classes"
        click.echo(f"{rule.promise}: answers of {classes} are accepted, each with its own threshold")
    if sets:
        click.echo(f"prediction sets of {sets.coverage:.0%}: classes of at least {sets.threshold:g}")
    if known := result.card.known:
        click.echo(f"known: {count(known.images)} labelled images; farther than 95% of them is a stranger")
    click.echo(f"{out}: calibrated; score with it")
