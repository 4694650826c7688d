"""`batchland data`: get a data set, split it, look it over before training on it."""

import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.train import training_extra

if TYPE_CHECKING:
    from batchland.data.download import Stage


@click.group()
def data() -> None:
    """Get labelled photos, split them, look them over."""


@data.command(epilog="Example: batchland data download --out data/landmark_images")
@click.argument("source", required=False)
@click.option("-o", "--out", type=click.Path(path_type=Path),
              help="The folder to make.  [default: data/NAME for NAME.zip]")  # fmt: skip
@click.option("--sha256", metavar="HEX", help="What the archive's must be; a copy made today tells it for tomorrow.")
@click.option("--max-size", type=click.FloatRange(0, min_open=True), default=64.0, show_default=True, metavar="GIB",
              help="Refuse what is larger, as an archive or unpacked.")  # fmt: skip
def download(source: str | None, out: Path | None, sha256: str | None, max_size: float) -> None:
    """Fetch the zip or tar archive SOURCE and unpack it as a folder.

    SOURCE is an http(s) address or a local file; without it, the landmarks of the walk-through are fetched: 50 classes,
    4,996 photos to train and 1,250 to test. The folder appears whole or not at all. A download that breaks off goes on
    where it stopped when the command is given again. Archives with links, with paths outside the folder, or that grow
    out of all proportion are refused.
    """
    from tqdm import tqdm

    from batchland.data.archive import UnpackLimits
    from batchland.data.download import REFERENCE_URL, DownloadOptions, default_folder
    from batchland.data.download import download as run

    source = source or REFERENCE_URL
    options = DownloadOptions(sha256=sha256, limits=UnpackLimits(max_bytes=int(max_size * 2**30)))
    with ExitStack() as bars:
        shown: dict[str, tqdm[None]] = {}

        def update(stage: "Stage", done: int, total: int | None) -> None:
            if stage not in shown:
                unit = {"unit": "B", "unit_scale": True} if stage == "download" else {"unit": " files"}
                shown[stage] = bars.enter_context(tqdm(desc=stage, disable=None, dynamic_ncols=True, **unit))
            bar = shown[stage]
            bar.total = total
            bar.update(done - bar.n)

        done = run(source, out or default_folder(source), options, on_progress=update)
    click.echo(
        f"{done.folder}: {done.unpacked.files} files, {done.unpacked.size / 1e6:.1f} MB, from {source} "
        f"({done.archive_bytes / 1e6:.1f} MB, sha256 {done.sha256})"
    )


@data.command(epilog="Example: batchland data split photos/ --out data/photos --parts train=0.8,test=0.2 --links")
@click.argument("folder", metavar="DATA", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--parts", default="train=0.8,val=0.2", show_default=True, metavar="NAME=SHARE,...",
              help="Two or three parts, whose shares make 1.")  # fmt: skip
@click.option("--seed", type=int, default=1337, show_default=True, help="Of the draw.")
@click.option("--links/--copies", default=False, show_default=True, help="Link to the photos, or copy them.")
@click.option("--group-prefix", metavar="REGEX",
              help="Photos of a class whose names start with the same match stay together: '[^-]+' for "
              "scene7-1.jpg and scene7-2.jpg.")  # fmt: skip
def split(folder: Path, out: Path, parts: str, group_prefix: str | None, **options: Any) -> None:
    """Divide labelled photos into parts, class by class.

    They are those of DATA/train, or of DATA itself, one folder a class. `train` takes the parts train and val as they
    are; without a val it keeps a fifth for validation by itself, by the same draw as this command with its defaults.
    Copies of one photo in a class get into one part, which that draw does not see to. DATA is left as it is.
    """
    from batchland.errors import UsageError

    with training_extra():
        from batchland.data.split import SplitOptions
        from batchland.data.split import split as run

    try:
        prefix = re.compile(group_prefix) if group_prefix is not None else None
        shares = {name: float(share) for name, share in (part.split("=") for part in parts.split(","))}
        given = SplitOptions(parts=shares, group_prefix=prefix, **options)
    except re.error as error:
        raise UsageError(f"--group-prefix {group_prefix}: not a regular expression ({error})") from error
    except (ValueError, UsageError) as error:
        raise UsageError(
            f"--parts {parts}: give two or three parts, their names of letters, digits, - and _, whose shares make 1, "
            f"such as train=0.8,test=0.2"
        ) from error
    made = run(folder, out, given)
    for part, counts in made.parts.items():
        click.echo(f"{made.folder / part}: {sum(counts.values())} photos of {len(counts)} classes")


@data.command(epilog="Example: batchland data check data/landmark_images --samples samples.png")
@click.argument("folder", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--samples", type=click.Path(path_type=Path), metavar="FILE.png",
              help="Also draw some photos of each class, as a model sees them; replaces the file.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Notes count as problems, too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything that was found as JSON.")
def check(folder: Path, samples: Path | None, strict: bool, as_json: bool) -> None:
    """Read all labelled photos and say what is wrong with them.

    They are those of DATA/train, or of DATA itself, of DATA/val and DATA/test. Problems are what training or evaluating
    would refuse or be deceived by: classes without photos, test folders that training does not know, one picture in
    train and in test or in two classes. They end the command with exit code 4. Notes are unreadable photos, which
    training skips, and mere repetitions.
    """
    from tqdm import tqdm

    from batchland.data.check import check as run
    from batchland.data.check import table
    from batchland.data.samples import contact_sheet
    from batchland.errors import GateFailedError, UsageError
    from batchland.system.files import check_new_file, write_file

    if samples is not None:
        check_new_file(samples, ".png")
        if samples.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{samples}: lies inside {folder}, among the photos; give --samples a name elsewhere")

    with tqdm(unit=" photos", disable=None, dynamic_ncols=True) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found, classes = run(folder, on_progress=update)
    click.echo(found.model_dump_json(indent=2) if as_json else table(found), nl=as_json)
    if samples is not None:
        write_file(samples, lambda file: contact_sheet(classes).save(file, "PNG"))
    wrong = len(found.findings) if strict else found.problems
    if wrong:
        raise GateFailedError(f"{folder}: {wrong} problem{'s' * (wrong > 1)}, see above; mend the folders")
