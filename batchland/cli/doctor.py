"""`batchland doctor`: check everything that a nightly run needs."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import DEVICE_OF_ONE_GPU, PATH, Flag, json_option, options_of, print_json


@command(epilog="Example: batchland doctor --job jobs/nightly.toml")
@click.option("--job", type=PATH, help="Job file: check its input, models, disk and lock.")
@options_of(
    "batchland.scoring.options:ScoreOptions",
    Flag("model", "-m"),
    DEVICE_OF_ONE_GPU,
)
@json_option
def doctor(job: Path | None, model: Path | None, device: str, as_json: bool) -> None:
    """Check the installation, a model or a job.

    Checks the installation and a model, or everything that a job needs. Prints one line per check, with advice where
    something is wrong. The exit code is 1 if a check failed; warnings do not count. With a job, the models and the
    device come from the job file.
    """
    from functools import partial
    from itertools import chain

    from batchland.cli.advice import with_advice
    from batchland.cli.documents import DoctorCheck, DoctorResult
    from batchland.doctor.examine import examine_installation, examine_job, examine_model

    if job and (model or device != "auto"):
        raise click.UsageError("the job file sets the models and the device; leave out --model and --device")
    checks = []
    checked = examine_job(job, partial(with_advice, flags=())) if job else examine_model(model, device)
    for check in chain(examine_installation(), checked):
        checks.append(check)
        if not as_json:
            advice = f" -> {check.advice}" if check.advice else ""
            click.echo(f"{check.state:5} {check.name:15} {check.found}{advice}")
    ok = all(check.state != "fail" for check in checks)
    if as_json:
        print_json(DoctorResult(ok=ok, checks=tuple(DoctorCheck(**check._asdict()) for check in checks)))
    if not ok:
        raise SystemExit(1)
