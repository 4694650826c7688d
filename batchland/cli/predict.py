"""`batchland predict`: the likeliest classes of a few images, on the terminal."""

import json
import logging
from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import DEVICE_OF_ONE_GPU, PATH, Flag, json_option, options_of, print_json_text

_log = logging.getLogger("batchland")


@command(tables=True, epilog="Example: batchland predict bridge.jpg tower.jpg --top-k 3")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@options_of(
    "batchland.scoring.options:ScoreOptions",
    Flag("model", "-m"),
    Flag("top_k", "-k"),
    DEVICE_OF_ONE_GPU,
)
@json_option
def predict(images: tuple[Path, ...], model: Path | None, top_k: int, device: str, as_json: bool) -> None:
    """Show the likeliest classes of each IMAGE.

    `score` gives the same classes and probabilities. Images that cannot be read are shown as failed; the exit code is
    then 3.
    """
    from batchland.errors import TooManyFailedError
    from batchland.models.session import open_session
    from batchland.scoring.options import find_model
    from batchland.scoring.predict import predict as run
    from batchland.scoring.predict import prediction_table

    session = open_session(find_model(model), device, keep_copy=True)
    if session.fallback:
        _log.info("device auto: runs on the CPU, because %s", session.fallback)
    predictions = list(run(images, session, top_k))
    if as_json:
        print_json_text(json.dumps([each.model_dump(mode="json") for each in predictions], indent=2))
    else:
        click.echo(prediction_table(predictions), nl=False)
    failed = sum(each.error_code is not None for each in predictions)
    if failed:
        raise TooManyFailedError(f"{failed} of {len(predictions)} images failed, see above")
