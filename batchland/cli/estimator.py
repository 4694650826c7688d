"""`batchland estimator`: let nights estimate a model's accuracy without labels."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import PATH


@command(epilog="Example: batchland estimator data/test --model models/transfer.onnx")
@click.argument("data", metavar="DATA", type=PATH)
@click.option("--model", required=True, type=PATH, help="The ONNX file.")
@click.option(
    "--copies",
    type=click.IntRange(50),
    default=300,
    show_default=True,
    help="Photos of which each of 26 worse copies is made; more take longer.",
)
def estimator(data: Path, model: Path, copies: int) -> None:
    """Learn to estimate the accuracy of nights without labels.

    DATA holds class folders of photos that the model was not trained on, a thousand or so. Writes NAME.estimator.json
    beside the model; nights of jobs with this model then have an estimate in their record.
    """
    from batchland.models.session import open_session
    from batchland.monitoring.estimate import estimator_path
    from batchland.monitoring.fit_estimator import make_estimator
    from batchland.system.text import percent

    session = open_session(model)
    made = make_estimator(model, data, session, copies=copies, on_progress=lambda line: click.echo(line, err=True))
    click.echo(
        f"{estimator_path(model)}: accuracy {percent(made.accuracy)} on {made.labelled} photos; "
        f"on unseen kinds of worse pictures the estimate is wrong by {percent(made.error)} (root mean square)"
    )
