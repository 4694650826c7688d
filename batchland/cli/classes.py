"""`batchland classes`: add a class to a model without training."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import group
from batchland.cli.options import PATH, Flag, build, options_of, overwrite_option


@group()
def classes() -> None:
    """Change the classes of a model."""


@classes.command(
    tables=True,
    epilog='Example: batchland classes add "Old Mill" photos/mill --model m.onnx --labels data/test --out n.onnx',
)
@click.argument("label")
@click.argument("photos", type=PATH)
@click.option("-m", "--model", required=True, type=PATH, help="A model with features.")
@click.option("-o", "--out", required=True, type=PATH, help="The ONNX file to write.")
@click.option("-l", "--labels", type=PATH,
              help="Labelled photos of the old classes, CLASS/*.jpg, that the model was not trained on.")  # fmt: skip
@options_of("batchland.embeddings.new_class:AddClassOptions", Flag("most_taken", metavar="SHARE"))
@overwrite_option
def add(label: str, photos: Path, model: Path, out: Path, labels: Path | None, **values: Any) -> None:
    """Add the class LABEL to a model, from PHOTOS of it, without training.

    An image is of the new class if its features are like those of PHOTOS, a folder of at least 5 photos of different
    scenes, and better of 20 or more. The old classes keep their order among themselves. Prints how many of the photos
    are recognised when they are held out and, with --labels, the accuracy of the old classes before and after. Training
    gives better answers, but takes longer. Thresholds of `calibrate` are removed from the card, because they are those
    of the old classes.
    """
    from batchland.embeddings.new_class import AddClassOptions, add_new_class
    from batchland.evaluation.intervals import rate
    from batchland.system.text import count, first_few, interval, percent, visible

    options = build(AddClassOptions, values)
    made = add_new_class(label, photos, model, out, labels, options)
    added = made.card.added[-1]

    def share(right: int, total: int) -> str:
        found = rate(right, total, 0.95)
        return f"{percent(found.value)} ({interval(found)})"

    if made.skipped:
        click.echo(f"note: {count(len(made.skipped))} files cannot be read: {first_few(made.skipped)}")
    click.echo(
        f"{visible(added.label)}: {count(added.recognised)} of {count(added.photos)} photos recognised when held out, "
        f"{share(added.recognised, added.photos)}"
    )
    if 2 * added.recognised < added.photos:
        click.echo("note: fewer than half of them are recognised; train a model with this class instead")
    if old := made.old:
        click.echo(
            f"old classes: {share(old.right_before, old.labelled)} of {count(old.labelled)} labelled photos right "
            f"before, {share(old.right_after, old.labelled)} now; {count(old.taken)} are classified as the new one"
        )
        if old.taken > options.most_taken * old.labelled:
            click.echo(f"note: these are more than {percent(options.most_taken)}; give more labelled photos")
    else:
        click.echo(
            "note: the threshold is the one that 95% of these photos pass, so this share is no accuracy; how many "
            "images of the old classes are now classified as the new one is unknown, and may be most: "
            "measure it with --labels"
        )
    if made.dropped:
        click.echo(f"note: removed from the card, because it was for the old classes: {', '.join(made.dropped)}")
    click.echo(f"{out}: {count(len(made.card.classes))} classes")
