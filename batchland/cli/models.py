"""`batchland adopt` (add a card to an ONNX model) and `batchland inspect` (print a model's card)."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, Flag, build, json_option, options_of, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchland.models.adopt_check import Alternative
    from batchland.models.card import AdoptionSummary
    from batchland.models.session import Session

_MAX_CLASSES: Final = 100
"""Number of classes that `inspect` lists one by one."""
_WIDTH: Final = 96
"""Characters of a line of values, beside the 14 of their names."""
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_FIRST_CLASSES: Final = 10
"""Number of them that it lists of more."""


@command(
    epilog="Example: batchland adopt resnet.onnx --classes labels.txt --preprocess imagenet --out models/resnet.onnx"
)
@click.argument("model", type=PATH)
@options_of(
    "batchland.models.adopt_options:AdoptOptions",
    "classes",
    Flag("preprocess", metavar="imagenet|half|unit|byte|FILE.json"),
    "output",
    Flag("output_name", metavar="NAME"),
    "precision",
    Flag("check", metavar="LABELLED_DIR"),
    Flag("calibrate", metavar="LABELLED_DIR"),
    Flag("max_drop", metavar="POINTS"),
    "allow_slower",
    "name",
)
@click.option("-o", "--out", required=True, type=PATH, help="The ONNX file to write.")
def adopt(model: Path, out: Path, **values: Any) -> None:
    """Make an ONNX classifier from elsewhere ready for scoring.

    Adds a card with the classes and the preprocessing to the file. Normalisation, and softmax where it is missing,
    become part of the graph, so that scoring needs no options for them. The card records what was found and assumed.
    """
    from batchland.models.adopt import adopt as run
    from batchland.models.adopt_check import comparison_table, undecided
    from batchland.models.adopt_options import AdoptOptions
    from batchland.system.text import images, percent

    def show(results: "Sequence[Alternative]") -> None:
        click.echo(comparison_table(results) + undecided(results), nl=False)

    session = run(model, out, build(AdoptOptions, values), on_check=show)
    if int8 := session.card.int8:
        click.echo(
            f"int8: the first class of fp32 for {percent(int8.agreement)} of {images(int8.images)}; accuracy "
            f"{percent(int8.accuracy)}, fp32 {percent(int8.accuracy_fp32)}; {int8.speed:.2f} times as fast on this CPU"
        )
    if values.get("precision") == "fp16":
        click.echo("note: fp16 is for GPUs; CPUs are slower with it than with fp32")
    click.echo(
        f"{out}: adopted, {len(session.card.classes)} classes, {found_text(session.card.adoption)}; "
        f"see its card with: batchland inspect {out}"
    )


@command(epilog="Example: batchland inspect models/scratch.onnx")
@click.argument("model", type=PATH)
@json_option
def inspect(model: Path, as_json: bool) -> None:
    """Print a model's card: classes, preprocessing, origin."""
    from batchland.models.session import open_session

    session = open_session(model, "cpu")
    if as_json:
        print_json(session.card)
    else:
        click.echo(_card_table(session), nl=False)


def found_text(adoption: "AdoptionSummary | None") -> str:
    """A short text about what adoption found and assumed."""
    assert adoption is not None
    return (
        f"labels from {adoption.classes_from}, preprocessing from {adoption.preprocess_from}, {adoption.channels}, "
        f"{adoption.layout}, softmax {adoption.softmax}"
    )


def _card_table(session: "Session") -> str:
    card = session.card
    rows = {"name": card.name, "architecture": card.architecture, "created": card.created_at, "sha256": session.sha256}
    rows["preprocess"] = _pairs(card.preprocess)
    rows["features"] = str(card.features or "none")
    rows["versions"] = _pairs(card.versions.items()) or "unknown"
    if card.training:
        kept = card.training.model_dump(exclude={"settings"}) | card.training.settings
        rows["training"] = _pairs(kept.items())
    for name in ("data", "export", "adoption", "int8", "decision", "prediction_sets"):
        if part := getattr(card, name):
            rows[name] = _pairs(part)
    if card.added:
        rows["added"] = "; ".join(_pairs(each.model_dump(exclude_none=True).items()) for each in card.added)
    if card.known:
        rows["known"] = f"{card.known.images} labelled images, labels_fingerprint {card.known.labels_fingerprint}"
    lines = [line for key, value in rows.items() for line in _wrapped(key, value)]
    lines.append(f"{'classes':13} {len(card.classes)}")
    shown = card.classes if len(card.classes) <= _MAX_CLASSES else card.classes[:_FIRST_CLASSES]
    for index, each in enumerate(shown):
        lines.append(f"{index:13} {each.label}" + (f"  ({each.folder})" if each.folder != each.label else ""))
    if len(shown) < len(card.classes):
        lines.append(f"{'':13} and {len(card.classes) - len(shown)} more; --json lists all")
    return "\n".join(lines) + "\n"


def _wrapped(key: str, value: str) -> "Iterable[str]":
    """`key  value`, a long value on several lines."""
    first, *rest = textwrap.wrap(value, _WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    for name, line in zip((key, *("" for _ in rest)), (first, *rest), strict=True):
        yield f"{name:13} {line}".replace(_NO_BREAK, " ")


def _pairs(values: "Iterable[tuple[str, Any]]") -> str:
    """`name value, name value`, without those that are None or counts of nothing. Lines break after a pair."""
    shown = ((name, value) for name, value in values if value is not None)
    pairs = (f"{name} {_value(value)}" for name, value in shown if value != 0 or not name.endswith("_images"))
    return ", ".join(pair.replace(" ", _NO_BREAK) for pair in pairs)


def _value(value: Any) -> str:
    """Numbers with at most six digits, tuples in brackets."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
