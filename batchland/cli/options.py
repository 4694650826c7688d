"""Click options made from the fields of option models.

    @command(epilog="Example: batchland export runs/scratch --out models/scratch.onnx")
    @options_of("batchland.training.options:ExportOptions", "data", "precision", Flag("max_drop", metavar="POINTS"))
    def export(**options): ...

The field gives name, type, bounds, default and help. The command's module adds only what is specific to the command
line: short flags, metavars, and flags with another spelling. A model is imported when the options of its command are
first needed, so that `batchland --help` does not import pydantic.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import click
from click.shell_completion import CompletionItem
from click.types import OptionHelpExtra

from batchland.system.text import SAFE_NAME

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Model = TypeVar("Model", bound="BaseModel")

PATH: Final = click.Path(path_type=Path)
_BYTES: Final = {"GB": 10**9, "GiB": 2**30}


class _Night(click.DateTime):
    """The date of a night."""

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d"])

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        """Placeholder in the help."""
        return "YYYY-MM-DD"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The night as a datetime."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not a date like 2026-11-23.", param, ctx)


class _JobName(click.ParamType[str]):
    """The name of a job, not a path."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name."""
        if not re.fullmatch(SAFE_NAME, value):
            self.fail(f"{value!r} is not the name of a job; --runs says where its records are.", param, ctx)
        return value


NIGHT: Final = _Night()
JOB_NAME: Final = _JobName()


class Flag(NamedTuple):
    """A field of a model that becomes a command-line option."""

    field: str
    names: str = ""
    """Short flags, and the long one if it is not the field's name: `-l --last`, or `--links/--copies`."""
    metavar: str | None = None
    """Placeholder of the value in the help. With GB or GiB, the user gives this unit and the field gets bytes."""
    type: "click.ParamType[Any] | None" = None
    """Replaces the type of the field, for a stricter check."""
    brief: bool = False
    """Show only the first sentence of the field's docstring, if the rest does not apply to this command."""


class ModelOptions(NamedTuple):
    """Placeholder for options that are made from a model when they are first needed."""

    model: str
    flags: tuple[Flag, ...]

    def make(self) -> Iterator[click.Option]:
        """Import the model and make the options."""
        module, _, name = self.model.partition(":")
        model = getattr(import_module(module), name)
        return (_option(flag, model) for flag in self.flags)


DEVICE_OF_ONE_GPU: Final = Flag("device", metavar="auto|cpu|cuda[:N]|tensorrt[:N]", brief=True)


def options_of(model: str, *flags: Flag | str) -> Callable[[Decorated], Decorated]:
    """Decorator, used below `@command`: add options for these fields. model: `package.module:Class`."""

    def decorate(function: Decorated) -> Decorated:
        given = tuple(Flag(flag) if isinstance(flag, str) else flag for flag in flags)
        function.__dict__.setdefault("__click_params__", []).append(ModelOptions(model, given))
        return function

    return decorate


def build(model: type[Model], values: dict[str, Any]) -> Model:
    """Validate the given options and return them as a `model`. Raises click.BadParameter if one is invalid."""
    from pydantic import ValidationError

    from batchland.system.options import plain_message

    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        wrong = error.errors()[0]
        context = click.get_current_context()
        parameter = next((each for each in context.command.params if (each.name,) == wrong["loc"][:1]), None)
        value = f"{wrong['input']}: " if isinstance(wrong["input"], str | int | float | Path) else ""
        raise click.BadParameter(value + plain_message(wrong), context, parameter) from error


def complete_path(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Shell completion with files and folders, for an argument that may also be a URL."""
    return [CompletionItem(incomplete, type="file")]


out_option = click.option(
    "-o",
    "--out",
    required=True,
    shell_complete=complete_path,
    help="NAME.parquet for one file; any other name is a folder of parts. A path or a URL.",
)
"""The option for the path of predictions."""
labels_option = click.option(
    "-l",
    "--labels",
    required=True,
    type=PATH,
    help="Folder of class folders, or a CSV or Parquet file with the columns `image` and `label`.",
)
runs_option = click.option(
    "--runs", type=PATH, default=Path("runs"), show_default=True, help="Folder with the records of all jobs."
)
JSON_PRINTED: Final = "batchland.json_printed"
"""Key of a click context's `meta`: the document of --json is printed."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Also replace existing files that an earlier run of this command did not write."
)


def split_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """Names from a repeatable option whose values may also be lists, like `camera,site`."""
    return tuple(name.strip() for text in given for name in text.split(",") if name.strip())


def print_json(document: "BaseModel") -> None:
    """Print the document of --json to stdout."""
    print_json_text(document.model_dump_json(indent=2))


def print_json_text(text: str) -> None:
    """Print JSON to stdout, as the one document of this command."""
    click.get_current_context().meta[JSON_PRINTED] = True
    click.echo(text)


class _Option(click.Option):
    """A command-line option made from a field. The field's docstring is read only when the help is shown."""

    def __init__(self, flag: Flag, model: "type[BaseModel]", *arguments: Any, **attributes: Any) -> None:
        self._flag, self._model = flag, model
        super().__init__(*arguments, **attributes)

    @property
    def help(self) -> str:
        """The docstring up to `Default:`."""
        text = self._texts()[0]
        if self._flag.brief:
            text = text.partition(". ")[0].removesuffix(".") + "."
        if self._flag.metavar in _BYTES:
            text = text.replace("bytes", str(self._flag.metavar))
        return text + (" Repeatable." if self.multiple else "")

    @help.setter  # noqa: A003
    def help(self, text: str | None) -> None:  # click sets it to None
        pass

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Describes the default in words, such as `all images`, where the docstring does."""
        extra = super().get_help_extra(ctx)
        if default := self._texts()[1]:
            extra["default"] = default
        return extra

    def _texts(self) -> tuple[str, str]:
        """The docstring without its default, and the default in words."""
        from batchland.system.field_texts import field_texts

        text = " ".join(field_texts(self._model).get(self._flag.field, "").split())
        before, found, default = text.removesuffix(".").partition(" Default: ")
        return (before, default) if found else (text, "")


def _in_bytes(unit: int, ctx: click.Context, param: click.Parameter, size: float) -> int:
    """`size` units as a number of bytes."""
    if not math.isfinite(size * unit):
        raise click.BadParameter(f"{size} is not a finite size.", ctx, param)
    return round(size * unit)


def _option(flag: Flag, model: "type[BaseModel]") -> click.Option:
    field = model.model_fields[flag.field]
    kind = _Kind.of(field)
    default, attributes = field.default, kind.attributes()
    if unit := _BYTES.get(flag.metavar or ""):
        default //= unit
        attributes |= {"type": click.FloatRange(0, min_open=True), "callback": partial(_in_bytes, unit)}
    if isinstance(default, dict):
        default = ",".join(f"{key}={value}" for key, value in default.items())
    if default in ((), ""):
        default = None
    return _Option(
        flag,
        model,
        [flag.field, *_names(flag, kind, default)],
        default=default,
        show_default=(default is not None and default is not False) or "/" in flag.names,
        metavar=flag.metavar,
        **attributes | ({"type": flag.type} if flag.type else {}),
    )


def _names(flag: Flag, kind: "_Kind", default: Any) -> list[str]:
    names = flag.names.split()
    if not any(name.startswith("--") for name in names):
        spelled = flag.field.replace("_", "-")
        names.append(f"--{spelled}/--no-{spelled}" if kind.annotation is bool and default else f"--{spelled}")
    return names


class _Kind(NamedTuple):
    """The type of a field without `None`, and its bounds."""

    annotation: Any
    bounds: dict[str, float]

    @classmethod
    def of(cls, field: "FieldInfo") -> "_Kind":
        annotation, metadata = field.annotation, list(field.metadata)
        if type(None) in get_args(annotation):
            (annotation,) = (each for each in get_args(annotation) if each is not type(None))
        if get_origin(annotation) is Annotated:
            annotation, *further = get_args(annotation)
            metadata += [each for info in further for each in getattr(info, "metadata", ())]
        bounds = {
            name: getattr(each, name) for each in metadata for name in ("gt", "ge", "lt", "le") if hasattr(each, name)
        }
        return cls(annotation, bounds)

    def attributes(self) -> dict[str, Any]:
        """Arguments of click.Option."""
        if self.annotation is bool:
            return {"is_flag": True}
        if get_origin(self.annotation) is Literal:
            return {"type": click.Choice(get_args(self.annotation))}
        if self.annotation == tuple[str, ...]:
            return {"multiple": True}
        if get_origin(self.annotation) is tuple:  # a pair of dates
            return {"nargs": len(get_args(self.annotation)), "type": NIGHT}
        if issubclass(get_origin(self.annotation) or self.annotation, Path):
            return {"type": PATH}
        return {"type": self._value_type()}

    def _value_type(self) -> "click.ParamType[Any]":
        gt, ge, lt, le = (self.bounds.get(name) for name in ("gt", "ge", "lt", "le"))
        if self.annotation is int:
            low, high = ge if gt is None else gt + 1, le if lt is None else lt - 1
            return click.INT if low is high is None else click.IntRange(low, high)  # type: ignore[arg-type]
        if self.annotation is float:
            low, high = ge if gt is None else gt, le if lt is None else lt
            return click.FloatRange(low, high, min_open=gt is not None, max_open=lt is not None)
        return click.STRING
