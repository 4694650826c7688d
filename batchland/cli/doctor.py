"""`batchland doctor`: is everything here that a nightly run needs?"""

from pathlib import Path

import click


@click.command(epilog="Example: batchland doctor --job jobs/nightly.toml")
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path),
    help="ONNX file to try.  [default: the one that `batchland score` would take]",
)
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="What runs shall use.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON, one a line.")
def doctor(model: Path | None, device: str, as_json: bool) -> None:
    """Check this installation: one line each, and what to do about it.

    Ends with exit code 1 if a check failed; warnings are no failures.
    """
    import json

    from batchland.doctor import examine

    states = []
    for check in examine(model=model, device=device):
        states.append(check.state)
        advice = f" -> {check.advice}" if check.advice else ""
        click.echo(json.dumps(check._asdict()) if as_json else f"{check.state:5} {check.name:15} {check.found}{advice}")
    if "fail" in states:
        raise SystemExit(1)
