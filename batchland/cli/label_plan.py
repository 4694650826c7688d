"""`batchland label-plan`: choose images to label, and estimate the accuracy from them."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, build, complete_path, options_of

_MISSED = 1.25
"""If the interval is wider than expected by this factor, a note says so."""


@command(
    tables=True, name="label-plan", epilog="Example: batchland label-plan preds.parquet --budget 200 --out plan.csv"
)
@click.argument("predictions", metavar="PREDS", shell_complete=complete_path)
@click.option("-o", "--out", type=PATH, help="CSV file of the images to label.")
@click.option("--labelled", type=PATH, metavar="PLAN",
              help="A plan with its column `label` filled in: print the estimated accuracy.")  # fmt: skip
@options_of("batchland.evaluation.label_plan:LabelPlanOptions", "budget", "seed")
def label_plan(predictions: str, out: Path | None, labelled: Path | None, **values: Any) -> None:
    """Choose images to label, to estimate the accuracy.

    Writes a table with the columns image, label (to be filled in), predicted, probability, stratum and weight. Fewer
    images are chosen where the model is confident; the weights keep the estimate unbiased even if the confidence is
    wrong. Prints how many labels a random choice would need for the same interval, and whether a plan is worth it.

    With --labelled, reads the table with its labels and prints the accuracy over all images of PREDS. Labels are the
    classes' folders or labels, as for evaluate. For an image of none of the classes, write any other word, such as
    none: the prediction counts as wrong. The plan must be one of PREDS.
    """
    from batchland.errors import UsageError
    from batchland.evaluation.label_plan import LabelPlanOptions, plan_labels
    from batchland.evaluation.labelled_plan import labelled_accuracy
    from batchland.evaluation.saved import write_csv
    from batchland.system.files import check_new_file, write_file
    from batchland.system.text import count, first_few, images, interval, percent

    if (out is None) == (labelled is None):
        raise click.UsageError("give --out to make a plan, or --labelled to evaluate one")
    if labelled is not None:
        result = labelled_accuracy(predictions, labelled)
        click.echo(f"accuracy {percent(result.accuracy.value)} (95% interval {interval(result.accuracy)})")
        if result.expected and result.half_width > _MISSED * result.expected:
            click.echo(
                f"note: the interval is {100 * result.half_width:.1f} points to each side; a plan expects "
                f"{100 * result.expected:.1f} if the probabilities are right; label more images to narrow it"
            )
        if result.paid is False:
            click.echo("note: the plan was no better than a random choice of as many images")
        if result.unlabelled:
            verb = "has" if result.unlabelled == 1 else "have"
            click.echo(f"note: {count(result.unlabelled)} of {count(result.rows)} rows of the plan {verb} no label")
        if result.foreign:
            names = first_few([*map(repr, result.foreign)], 10)
            click.echo(f"note: labels of none of the model's classes, which count as wrong: {names}")
        if result.unplanned:
            click.echo(
                f"note: the rows of the plan do not represent {images(result.unplanned)}: rows are missing, or weights "
                f"were changed"
            )
        return
    assert out is not None
    if out.exists():
        raise UsageError(f"{out}: exists, and may hold labels", advice="other_out")
    check_new_file(out, ".csv")
    planned = plan_labels(predictions, build(LabelPlanOptions, values))
    write_file(out, partial(write_csv, planned.table))
    plan = planned.plan
    click.echo(
        f"{out}: {images(plan.chosen)} of {count(plan.images)} to label; if the probabilities are right, "
        f"the accuracy is known within {100 * plan.half_width:.1f} points then; a random choice needs "
        f"{count(plan.random_labels)} labels for that"
    )
    if not plan.pays:
        click.echo(
            "This plan is not worth it: the model is about equally confident everywhere. Choose images at random."
        )
