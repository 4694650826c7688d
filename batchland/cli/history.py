"""`batchland history` and `batchland trend`: what the nights of a job were like."""

from pathlib import Path

import click


@click.command(epilog="Example: batchland history nightly --last 7")
@click.argument("name")
@click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder with the records of all jobs.",
)
@click.option("--last", type=click.IntRange(1), default=30, show_default=True, help="Nights to show.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line per night and model.")
def history(name: str, runs: Path, last: int, as_json: bool) -> None:
    """Show the nights of job NAME: what came in, what failed, how right and how fast it was."""
    from batchland.history import job_records, nights, table

    rows = nights(job_records(runs, name)[-last:])
    if as_json:
        for row in rows:
            click.echo(row.model_dump_json())
    else:
        click.echo(table(rows), nl=False)
