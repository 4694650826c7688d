"""`batchland estimator`: fit an estimator of a model's accuracy without labels."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import PATH


@command(epilog="Example: batchland estimator data/test --model models/transfer.onnx")
@click.argument("data", metavar="DATA", type=PATH)
@click.option("--model", required=True, type=PATH, help="The ONNX file.")
@click.option(
    "--copies",
    type=click.IntRange(50, 100_000),
    default=300,
    show_default=True,
    help="Photos to degrade in each of 26 ways; more take longer.",
)
def estimator(data: Path, model: Path, copies: int) -> None:
    """Fit an estimator of the accuracy of nights without labels.

    DATA holds class folders with about a thousand photos that the model was not trained on. Writes NAME.estimator.json
    beside the model; the records of nights with this model then contain an estimate.
    """
    from batchland.models.session import open_session
    from batchland.monitoring.estimate import estimator_path
    from batchland.monitoring.fit_estimator import make_estimator
    from batchland.system.text import counted, percent

    session = open_session(model)
    made = make_estimator(model, data, session, copies=copies, on_progress=lambda line: click.echo(line, err=True))
    click.echo(
        f"{estimator_path(model)}: accuracy {percent(made.accuracy)} on {counted(made.labelled, 'photo')}; "
        f"error of the estimate on other kinds of degraded photos {percent(made.error)} (root mean square)"
    )
