"""`batchland adopt` (add a card to an ONNX model) and `batchland inspect` (print a model's card)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.command import command

if TYPE_CHECKING:
    from batchland.models.session import Session


@command(
    epilog="Example: batchland adopt resnet.onnx --classes labels.txt --preprocess imagenet --out models/resnet.onnx"
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--classes", required=True, type=click.Path(path_type=Path),
              help="Text file, one label per line, in the order of the model's outputs.")  # fmt: skip
@click.option("--preprocess", default="imagenet", show_default=True, metavar="imagenet|half|unit|byte|FILE.json",
              help="Input that the model was trained on: ImageNet's crop and statistics; the whole picture as "
              "-1..1, 0..1 or 0..255; or a JSON file with height, width, fit, mean, std.")  # fmt: skip
@click.option("--output", type=click.Choice(["auto", "logits", "probabilities"]), default="auto", show_default=True,
              help="Output of the model; `auto` runs it on generated pictures to find out.")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True,
              help="`fp16` halves the file and is fastest on a GPU.")  # fmt: skip
@click.option("--name", help="Name of the model.  [default: the name of the file]")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
def adopt(model: Path, classes: Path, out: Path, **options: Any) -> None:
    """Make an ONNX classifier from elsewhere ready for scoring.

    Adds a card with the classes and the preprocessing to the file. Normalisation, and softmax where it is missing,
    become part of the graph, so that scoring needs no options for them.
    """
    from batchland.models.adopt import adopt as run

    session = run(model, classes, out, **options)
    click.echo(f"{out}: adopted, {len(session.card.classes)} classes; see its card with: batchland inspect {out}")


@command(epilog="Example: batchland inspect models/scratch.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Print a model's card: classes, preprocessing, origin."""
    from batchland.models.session import open_session

    session = open_session(model, "cpu")
    click.echo(session.card.model_dump_json(indent=2) if as_json else _card_table(session), nl=as_json)


def _card_table(session: "Session") -> str:
    card = session.card
    rows = {"name": card.name, "architecture": card.architecture, "created": card.created_at, "sha256": session.sha256}
    rows["preprocess"] = ", ".join(f"{key} {value}" for key, value in card.preprocess if value is not None)
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in card.versions.items()) or "unknown"
    if card.training:
        kept = card.training.model_dump(exclude={"settings"}) | card.training.settings
        rows["training"] = ", ".join(f"{key} {value}" for key, value in kept.items())
    if card.data:
        rows["data"] = ", ".join(f"{key} {value}" for key, value in card.data)
    if card.export:
        rows["export"] = ", ".join(f"{key} {value}" for key, value in card.export)
    lines = [f"{key:13} {value}" for key, value in rows.items()]
    lines.append(f"{'classes':13} {len(card.classes)}")
    lines += [f"{index:13} {name.label}  ({name.folder})" for index, name in enumerate(card.classes)]
    return "\n".join(lines) + "\n"
