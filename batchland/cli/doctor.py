"""`batchland doctor`: check everything that a nightly run needs."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import Flag, options_of


@command(epilog="Example: batchland doctor --job jobs/nightly.toml")
@click.option("--job", type=click.Path(path_type=Path), help="Job file: check its input, models, disk and lock.")
@options_of(
    "batchland.scoring.options:ScoreOptions",
    Flag("model", "-m"),
    Flag("device", metavar="auto|cpu|cuda[:N]|tensorrt[:N]", brief=True),
)
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON, one a line.")
def doctor(job: Path | None, model: Path | None, device: str, as_json: bool) -> None:
    """Check that batchland can run here, or a job.

    Checks the installation and a model, or all that a job needs: one line per check and, where something is wrong, what
    to do about it. The exit code is 1 if a check failed; warnings are no failures. A job names its models and its
    device itself.
    """
    import json
    from itertools import chain

    from batchland.doctor.examine import examine_installation, examine_job, examine_model

    if job and (model or device != "auto"):
        raise click.UsageError("a job names its models and its device itself; leave out --model and --device")
    failed = False
    for check in chain(examine_installation(), examine_job(job) if job else examine_model(model, device)):
        failed |= check.state == "fail"
        advice = f" -> {check.advice}" if check.advice else ""
        line = json.dumps(check._asdict()) if as_json else f"{check.state:5} {check.name:15} {check.found}{advice}"
        click.echo(line)
    if failed:
        raise SystemExit(1)
