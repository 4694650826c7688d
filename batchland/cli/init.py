"""`batchland init`: a folder for a new nightly job."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import PATH


@command(epilog="Example: batchland init /srv/photos")
@click.argument("folder", metavar="DIR", type=PATH)
def init(folder: Path) -> None:
    """Make DIR, the folder of a new nightly job.

    It gets jobs/nightly.toml, the folders that this job uses, and a README.md that says what to do next. DIR must be
    new or empty.
    """
    from batchland.nightly.site import make_site

    files = make_site(folder)
    click.echo(f"{folder}: made {', '.join(map(str, files))}; read {folder / 'README.md'}")
