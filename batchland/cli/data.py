"""`batchland data`: get a data set, split it, check it before training on it."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import group
from batchland.cli.options import PATH, Flag, build, json_option, options_of, print_json
from batchland.cli.train import training_extra
from batchland.system.paths import resolved
from batchland.system.text import counted


@group()
def data() -> None:
    """Get labelled photos, split them, check them."""


@data.command(epilog="Example: batchland data download --out data/landmark_images")
@click.argument("source", required=False)
@click.option("-o", "--out", type=PATH, help="The folder to make.  [default: data/NAME for NAME.zip]")
@options_of("batchland.data.options:DownloadOptions", Flag("sha256", metavar="HEX"))
@options_of("batchland.data.options:UnpackLimits", Flag("max_bytes", "--max-size", metavar="GiB"))
def download(source: str | None, out: Path | None, sha256: str | None, max_bytes: int) -> None:
    """Fetch the zip or tar archive SOURCE and unpack it as a folder.

    SOURCE is an http(s) address or a local file. The default is the landmarks of the walk-through: 50 classes, 4,996
    photos to train and 1,250 to test. The folder appears whole or not at all. If a download is interrupted, the same
    command continues it. Archives with links or paths outside the folder, and zip bombs, are refused.
    """
    from batchland.data.download import REFERENCE_URL, default_folder
    from batchland.data.download import download as run
    from batchland.data.options import DownloadOptions
    from batchland.system.names import display_path
    from batchland.system.progress import ProgressBar

    source = source or REFERENCE_URL
    options = build(DownloadOptions, {"sha256": sha256, "limits": {"max_bytes": max_bytes}})
    with ProgressBar() as bar:
        done = run(source, out or default_folder(source), options, on_progress=bar.update_task)
    click.echo(
        f"{done.folder}: {done.unpacked.files} files, {done.unpacked.size / 1e6:.1f} MB, from {display_path(source)} "
        f"({done.archive_bytes / 1e6:.1f} MB, sha256 {done.sha256})"
    )


@data.command(
    epilog="Example: batchland data split photos/ --out data/photos --parts train=0.8,test=0.2 --links",
)
@click.argument("folder", metavar="DATA", type=PATH)
@click.option("-o", "--out", required=True, type=PATH, help="The folder to make.")
@options_of(
    "batchland.data.options:SplitOptions",
    Flag("parts", metavar="NAME=SHARE,..."),
    "seed",
    Flag("links", "--links/--copies"),
    "near_copies",
    Flag("model", "-m --model"),
    Flag("group_prefix", metavar="REGEX"),
    "corrections",
)
def split(folder: Path, out: Path, parts: str, **values: Any) -> None:
    """Divide labelled photos into parts, class by class.

    The photos are in DATA/train, or in DATA itself, one folder per class. Copies and near-copies of a photo within
    a class are put into the same part. DATA is not changed.

    `train` uses the parts train and val as they are. If there is no val, `train` holds out a random fifth of each class
    itself. It chooses them as this command does by default, but does not keep copies together.
    """
    from batchland.data.options import SplitOptions

    with training_extra():
        from batchland.data.split import split as run

    try:
        pairs = (part.split("=") for part in parts.split(","))
        shares = {name: float(share) for name, share in pairs}
    except ValueError as error:
        raise click.BadParameter(f"{parts}: write it like train=0.8,test=0.2", param_hint="--parts") from error
    given = build(SplitOptions, values | {"parts": shares})
    made = run(folder, out, given)
    for part, counts in made.parts.items():
        photos = counted(sum(counts.values()), "photo")
        click.echo(f"{made.folder / part}: {photos} of {counted(len(counts), 'class', 'classes')}")


@data.command(epilog="Example: batchland data check data/landmark_images --samples samples.png")
@click.argument("folder", metavar="DATA", type=PATH)
@click.option("--samples", type=PATH, metavar="FILE.png",
              help="Also draw photos of each class, as a model sees them; replaces this file.")  # fmt: skip
@click.option("--corrections", type=PATH, metavar="FILE.csv",
              help="Corrected labels, as a report's page saves them: count photos for these classes.")  # fmt: skip
@click.option("-m", "--model", type=PATH,
              help="A model with features: compare these, too, to find more cropped near-copies.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Count notes as problems, too.")
@json_option
def check(
    folder: Path, samples: Path | None, corrections: Path | None, model: Path | None, strict: bool, as_json: bool
) -> None:
    """Read all labelled photos and report what is wrong with them.

    The photos are in DATA/train, or in DATA itself, and in DATA/val and DATA/test. Problems make
    training or evaluation fail or give wrong figures: classes without photos, test folders without a folder in train,
    the same picture in train and test or in two classes, also if it was resized, compressed again, cropped a little or
    stamped. If there are any, the exit code is 4. All other findings are notes, such as unreadable photos, which
    training skips, and copies within a class.
    """
    from batchland.data.check import check as run
    from batchland.data.check import table
    from batchland.data.samples import check_new_sheet, contact_sheet, save_sheet
    from batchland.errors import GateFailedError, UsageError
    from batchland.system.files import write_file
    from batchland.system.progress import ProgressBar

    if samples is not None:
        check_new_sheet(samples)
        if resolved(samples).is_relative_to(resolved(folder)):
            raise UsageError(f"{samples}: is inside {folder}, among the photos; give --samples another path")

    with ProgressBar("photos") as bar:
        found, classes = run(folder, corrections=corrections, model=model, on_progress=bar.update)
    if as_json:
        print_json(found)
    else:
        click.echo(table(found), nl=False)
    if samples is not None:
        write_file(samples, lambda file: save_sheet(contact_sheet(classes), file))
    wrong = len(found.findings) if strict else found.problems
    if wrong:
        raise GateFailedError(f"{folder}: {counted(wrong, 'problem')}, see above; correct the folders")
