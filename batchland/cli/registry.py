"""`batchland models`: the registry of models, its versions and aliases."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.command import group
from batchland.cli.options import PATH, Flag, build, json_option, options_of, print_json

if TYPE_CHECKING:
    from batchland.models.registry import Change, FolderRegistry, Reference, RegisteredModel

_registry_option = click.option(
    "--registry", type=PATH, default=Path("models"), show_default=True, help="Folder of the registry."
)
_alias_option = click.option("--alias", default="production", show_default=True, help="The alias to move.")


@group()
def models() -> None:
    """Manage versions of models, and which one is in production.

    A job uses one with model = "NAME@ALIAS". The registry is a plain folder.
    """


@models.command(epilog="Example: batchland models add runs/m.onnx --name landmarks --note 'more night photos'")
@click.argument("file", type=PATH)
@click.option("--name", required=True, help="Name of the model.")
@click.option("--note", default="", help="What is new about it.")
@_registry_option
def add(file: Path, name: str, note: str, registry: Path) -> None:
    """Add FILE to the registry, as the next version of a model.

    FILE and its canaries are copied. No alias changes.
    """
    added = _open(registry).add(name, file, note)
    promote = f"batchland models promote {name}@{added.version} --registry {shlex.quote(str(registry))}"
    click.echo(
        f"{name} {added.version}: added; give it the alias production with: {promote} --labels FOLDER, where FOLDER "
        f"has labelled images; or without a check: {promote} --unchecked"
    )


@models.command("list", epilog="Example: batchland models list")
@_registry_option
@json_option
def list_(registry: Path, as_json: bool) -> None:
    """List all models, their versions and aliases."""
    from batchland.cli.documents import RegistryContent
    from batchland.system.text import aligned

    found = _open(registry)
    content = [found.read(name) for name in found.names()]
    if as_json:
        print_json(RegistryContent(registry=str(registry), models=tuple(content)))
        return
    rows = [("model", "version", "aliases", "added", "by", "note")]
    for model in content:
        for version in model.versions:
            aliases, added = model.aliases_of(version), version.added_at[:16]
            rows.append((model.name, str(version.version), aliases, added, version.added_by, version.note))
    click.echo("\n".join(aligned(rows, "<><<<<")) if len(rows) > 1 else f"{registry}: no models")


@models.command(epilog="Example: batchland models show landmarks")
@click.argument("name")
@_registry_option
@json_option
def show(name: str, registry: Path, as_json: bool) -> None:
    """Print versions, aliases and history of the model NAME.

    The history has who moved which alias, when and why.
    """
    model = _open(registry).read(name)
    if as_json:
        print_json(model)
        return
    click.echo("\n".join(_shown(model)))


@models.command(epilog="Example: batchland models promote landmarks@4 --labels data/test --gate 'drop(top1) > 0.5%'")
@click.argument("model", metavar="NAME@VERSION")
@_alias_option
@options_of(
    "batchland.nightly.promotion:PromoteOptions",
    "labels",
    "images",
    Flag("device", metavar="auto|cpu|cuda[:N]|tensorrt[:N]"),
    "reason",
)
@click.option("--gate", "gates", multiple=True, help="Refuse if this is true. Repeatable.  [default: drop(top1) > 1%]")
@click.option("--unchecked", is_flag=True, help="Promote without a labelled set.")
@_registry_option
@click.pass_context
def promote(ctx: click.Context, /, model: str, alias: str, unchecked: bool, registry: Path, **options: Any) -> None:
    """Give an alias to a version, if it passes the gates.

    The images are scored with this version and with the one that has the alias now; the report is kept in the registry.
    If a gate fails, the alias is not moved and the exit code is 4.
    """
    from batchland.errors import GateFailedError
    from batchland.nightly.promotion import PromoteOptions
    from batchland.nightly.promotion import promote as run

    if (options["labels"] is None) != unchecked:
        raise click.UsageError("give --labels with a labelled set, or --unchecked to promote without a check")
    options["gates"] = options["gates"] or None
    done = run(_open(registry), _reference(model), alias, build(PromoteOptions, options))
    click.echo("\n".join(_described(model, done.change)))
    if done.report:
        click.echo(f"report: {done.report}/report.html")
    if done.change.action == "refuse":
        click.echo("batchland: a gate failed, see above", err=True)
        ctx.exit(GateFailedError.exit_code)


@models.command(epilog="Example: batchland models rollback landmarks --reason 'wrong at night'")
@click.argument("name")
@_alias_option
@click.option("--reason", default="", help="Recorded in the history.")
@_registry_option
def rollback(name: str, alias: str, reason: str, registry: Path) -> None:
    """Give an alias back to the version that had it before."""
    click.echo("\n".join(_described(name, _open(registry).rollback(name, alias, reason))))


def _open(folder: Path) -> "FolderRegistry":
    from batchland.models.registry import FolderRegistry

    return FolderRegistry(folder)


def _reference(text: str) -> "Reference":
    from batchland.models.registry import Reference

    found = Reference.parse(text)
    if found is None:
        raise click.UsageError(f"{text!r} is not NAME@VERSION, like landmarks@4")
    return found


def _described(name: str, change: "Change") -> list[str]:
    before = f" (before: {change.before})" if change.before is not None else ""
    result = {
        "promote": f"is now version {change.version}{before}",
        "rollback": f"is again version {change.version}{before}",
        "refuse": f"is not moved to version {change.version}{before.replace('before', 'stays')}",
    }[change.action]
    return [f"{name.partition('@')[0]}@{change.alias} {result}", *(f"  {check}" for check in change.checks)]


def _shown(model: "RegisteredModel") -> list[str]:
    lines = [model.name]
    for version in model.versions:
        aliases = model.aliases_of(version)
        lines.append(
            f"  {version.version}{f' ({aliases})' if aliases else ''}: {version.architecture}, {version.classes} "
            f"classes, sha256 {version.sha256[:12]}, added {version.added_at} by {version.added_by}"
            f"{f': {version.note}' if version.note else ''}"
        )
    lines.append("history")
    for change in model.history:
        reason = f": {change.reason}" if change.reason else ""
        before = change.before or "none"
        lines.append(f"  {change.at} {change.by} {change.action} {change.alias} {before} -> {change.version}{reason}")
        lines += [f"    {check}" for check in change.checks]
    return lines
