"""The `batchland` command and its subcommands. Each module of this package defines a few of them.

Each command imports heavy packages when it runs, so that `--help` is fast.
"""

import logging
import sys

import click

from batchland._version import __version__
from batchland.cli.accept import accept
from batchland.cli.calibrate import calibrate
from batchland.cli.classes import classes
from batchland.cli.command import group
from batchland.cli.completion import completion
from batchland.cli.cron import cron
from batchland.cli.data import data
from batchland.cli.doctor import doctor
from batchland.cli.duplicates import duplicates
from batchland.cli.estimator import estimator
from batchland.cli.evaluate import compare, evaluate
from batchland.cli.history import history, index, trend
from batchland.cli.init import init
from batchland.cli.label_plan import label_plan
from batchland.cli.merge import merge
from batchland.cli.models import adopt, inspect
from batchland.cli.plan import plan
from batchland.cli.predict import predict
from batchland.cli.registry import models
from batchland.cli.run import job, run
from batchland.cli.sample import demo, sample
from batchland.cli.score import score
from batchland.cli.similar import similar
from batchland.cli.train import export, train
from batchland.system.streams import open_standard_streams

_log = logging.getLogger("batchland")


@group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batchland")
@click.option("-v", "--verbose", is_flag=True, help="Also log details.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only, and show no progress.")
@click.pass_context
def main(ctx: click.Context, verbose: bool, quiet: bool) -> None:
    """Train image classifiers, score folders of images with them, and evaluate the predictions.

    \b
    batchland score photos/ --out preds.parquet
    batchland evaluate preds.parquet --labels data/test --out report/
    """
    open_standard_streams()
    if verbose and quiet:
        raise click.UsageError("give --verbose or --quiet, not both")
    stderr = logging.StreamHandler()
    stderr.setLevel(logging.WARNING if quiet else logging.NOTSET)
    stderr.addFilter(lambda record: not getattr(record, "in_summary", False))  # the command prints it at its end
    form = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(format=form, handlers=[stderr], level=logging.WARNING)
    _log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if quiet:
        from batchland.system.progress import without_bars

        ctx.with_resource(without_bars())


for _heading, _commands in {  # both in the order in which a user needs them
    "Try it": (demo, sample),
    "Data and training": (data, train, export),
    "Models": (adopt, inspect, models, estimator, calibrate, classes),
    "Scoring": (predict, plan, score, merge),
    "Evaluation": (evaluate, compare, label_plan, duplicates, similar),
    "Nightly jobs": (init, run, job, accept, history, trend, index, cron),
    "This machine": (doctor, completion),
}.items():
    main.add_section(_heading, _commands)
