"""`batchland classes`: add a class to a model without training."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import group
from batchland.cli.options import Flag, build, options_of


@group()
def classes() -> None:
    """Change the classes of a model."""


@classes.command(
    epilog='Example: batchland classes add "Old Mill" photos/mill --model m.onnx --labels data/test --out n.onnx'
)
@click.argument("label")
@click.argument("photos", type=click.Path(path_type=Path))
@click.option("-m", "--model", required=True, type=click.Path(path_type=Path), help="A model with features.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
@click.option("-l", "--labels", type=click.Path(path_type=Path),
              help="Labelled photos of the old classes, CLASS/*.jpg, that the model was not trained on.")  # fmt: skip
@options_of("batchland.embeddings.new_class:AddClassOptions", Flag("most_taken", metavar="SHARE"))
def add(label: str, photos: Path, model: Path, out: Path, labels: Path | None, **values: Any) -> None:
    """Add the class LABEL to a model, from PHOTOS of it, without training.

    An image is of the new class if its features are like those of PHOTOS, a folder of 20 or more. The old classes keep
    their order among themselves. Prints how many of the photos are recognised when they are held out and, with
    --labels, the accuracy of the old classes before and after. Training gives better answers, but takes longer.
    Thresholds of `calibrate` are removed from the card, because they are those of the old classes.
    """
    from batchland.embeddings.new_class import AddClassOptions, add_new_class
    from batchland.evaluation.intervals import wilson
    from batchland.system.arrow import keep_pandas_out
    from batchland.system.text import count, first_few, percent, visible

    keep_pandas_out()
    made = add_new_class(label, photos, model, out, labels, build(AddClassOptions, values))
    added = made.card.added[-1]

    def rate(right: int, total: int) -> str:
        low, high = wilson(right, total)
        return f"{percent(right / total)} ({float(low) * 100:.1f} to {float(high) * 100:.1f}%)"

    if made.skipped:
        click.echo(f"note: {count(len(made.skipped))} files cannot be read: {first_few(made.skipped)}")
    click.echo(
        f"{visible(added.label)}: {count(added.recognised)} of {count(added.photos)} photos recognised when held out, "
        f"{rate(added.recognised, added.photos)}"
    )
    if 2 * added.recognised < added.photos:
        click.echo("note: fewer than half of them are recognised; train a model with this class instead")
    if added.labelled:
        click.echo(
            f"old classes: {rate(added.right_before, added.labelled)} of {count(added.labelled)} labelled photos right "
            f"before, {rate(added.right_after, added.labelled)} now; {count(added.taken)} are classified as the new one"
        )
    else:
        click.echo("note: without labelled photos, the effect on the accuracy of the old classes is unknown")
    if made.dropped:
        click.echo(f"note: removed from the card, because it was for the old classes: {', '.join(made.dropped)}")
    click.echo(f"{out}: {count(len(made.card.classes))} classes")
