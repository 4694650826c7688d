"""`batchland doctor`: is everything here that a nightly run needs?"""

from pathlib import Path

import click


@click.command(epilog="Example: batchland doctor --job jobs/nightly.toml")
@click.option("--job", type=click.Path(path_type=Path), help="Job file whose input, models, disk and lock to try.")
@click.option(
    "-m",
    "--model",
    type=click.Path(path_type=Path),
    help="Without a job: ONNX file to try.  [default: the one that `batchland score` would take]",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|tensorrt[:N]",
    help="Without a job: where to try it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON, one a line.")
def doctor(job: Path | None, model: Path | None, device: str, as_json: bool) -> None:
    """Check that everything here can do its work.

    The installation and a model, or all that a job needs: one line each, and what to do about it. Ends with exit code 1
    if a check failed; warnings are no failures.
    """
    import json
    from itertools import chain

    from batchland.doctor.examine import examine_installation, examine_job, examine_model

    if job and (model or device != "auto"):
        raise click.UsageError("a job names its models and its device itself; leave --model and --device out")
    failed = False
    for check in chain(examine_installation(), examine_job(job) if job else examine_model(model, device)):
        failed |= check.state == "fail"
        advice = f" -> {check.advice}" if check.advice else ""
        line = json.dumps(check._asdict()) if as_json else f"{check.state:5} {check.name:15} {check.found}{advice}"
        click.echo(line)
    if failed:
        raise SystemExit(1)
