"""`batchland inspect`: what a model file says of itself."""

from pathlib import Path

import click


@click.command(epilog="Example: batchland inspect models/scratch.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Print the card of an ONNX model: classes, preprocessing, where it comes from."""
    from batchland.session import open_session

    session = open_session(model, "cpu")
    if as_json:
        click.echo(session.card.model_dump_json(indent=2))
        return
    card = session.card
    rows = {"name": card.name, "architecture": card.architecture, "created": card.created_at, "sha256": session.sha256}
    rows["preprocess"] = ", ".join(f"{key} {value}" for key, value in card.preprocess if value is not None)
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in card.versions.items()) or "unknown"
    if card.training:
        kept = card.training.model_dump(exclude={"settings"}) | card.training.settings
        rows["training"] = ", ".join(f"{key} {value}" for key, value in kept.items())
    if card.data:
        rows["data"] = ", ".join(f"{key} {value}" for key, value in card.data)
    for key, value in rows.items():
        click.echo(f"{key:13} {value}")
    click.echo(f"{'classes':13} {len(card.classes)}")
    for index, name in enumerate(card.classes):
        click.echo(f"{index:13} {name.label}  ({name.folder})")
