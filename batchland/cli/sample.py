"""`batchland sample` and `batchland demo`: pictures to try everything on, and everything tried on them."""

import logging
from pathlib import Path

import click

_log = logging.getLogger("batchland")


@click.command(epilog="Example: batchland sample data/sample")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--images", type=int, default=480, show_default=True, help="Labelled pictures, train and test together.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed draws the same files.")
def sample(folder: Path, images: int, seed: int) -> None:
    """Draw the built-in sample set into DIR: train/ and test/ with class folders, and incoming/.

    Ten landmarks, unevenly filled, of many sizes and formats; incoming/ is a night's delivery with broken files in it.
    """
    from batchland.sample import draw_sample

    drawn = draw_sample(folder, seed=seed, images=images)
    click.echo(
        f"{drawn.root}: {drawn.training_images} training and {drawn.test_images} test pictures of "
        f"{len(drawn.classes)} classes; incoming/ has {drawn.incoming_files} files, {drawn.broken_files} of them broken"
    )
