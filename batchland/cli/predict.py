"""`batchland predict`: a few images, their likeliest classes on the terminal."""

import json
import logging
from pathlib import Path

import click

_log = logging.getLogger("batchland")


@click.command(epilog="Example: batchland predict bridge.jpg tower.jpg --top-k 3")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-m", "--model", type=click.Path(path_type=Path),
              help="ONNX file with a batchland card.  [default: $BATCHLAND_MODEL, models/transfer.onnx or "
              "models/scratch.onnx]")  # fmt: skip
@click.option("-k", "--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes shown per image.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|tensorrt[:N]",
    help="Where the model runs.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(images: tuple[Path, ...], model: Path | None, top_k: int, device: str, as_json: bool) -> None:
    """Show what each IMAGE is taken for, exactly as `score` would.

    Images that cannot be read are shown as failed, and the command then ends with exit code 3.
    """
    from batchland.errors import TooManyFailedError
    from batchland.models.session import open_session
    from batchland.scoring.options import find_model
    from batchland.scoring.predict import predict as run
    from batchland.scoring.predict import prediction_table

    session = open_session(find_model(model), device)
    if session.fallback:
        _log.info("device auto: runs on the CPU, because %s", session.fallback)
    predictions = list(run(images, session, top_k))
    if as_json:
        click.echo(json.dumps([each.model_dump(mode="json") for each in predictions], indent=2))
    else:
        click.echo(prediction_table(predictions), nl=False)
    failed = sum(each.error_code is not None for each in predictions)
    if failed:
        raise TooManyFailedError(f"{failed} of {len(predictions)} images failed, see above")
