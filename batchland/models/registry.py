"""A registry of models in a plain folder: numbered versions, aliases such as `production`, and their history.

    REGISTRY/landmarks/registry.json               versions, aliases, history; replaced by rename
    REGISTRY/landmarks/3/landmarks.onnx            a version, with its canaries beside it; never changed
    REGISTRY/landmarks/3/checks/production-.../    the report that a promotion was decided on

A job names a version as `landmarks@production` or `landmarks@3`.
"""

import getpass
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, ValidationError

from batchland.errors import LockedError, ModelError, OutputError, UsageError
from batchland.models.canaries import canaries_path
from batchland.models.session import open_session
from batchland.system.documents import Document
from batchland.system.files import read_error, write_file, write_remedy
from batchland.system.folders import new_folder
from batchland.system.lock import locked
from batchland.system.text import SAFE_NAME, first_few, near_miss

DOCUMENT: Final = "registry.json"
_REFERENCE: Final = re.compile(rf"({SAFE_NAME})@({SAFE_NAME})")
_LOCK_WAIT: Final = 10.0


class ModelVersion(Document):
    """One version of a model."""

    version: Annotated[int, Field(ge=1)]
    sha256: str
    """sha256 of the ONNX file."""
    added_at: str
    added_by: str
    """User and host."""
    source: str
    """Path that the file was copied from."""
    note: str = ""
    architecture: str
    classes: int


class Change(Document):
    """A change of an alias, or an attempt that a gate refused."""

    at: str
    by: str
    """User and host."""
    action: Literal["promote", "rollback", "refuse"]
    alias: str
    version: int
    """The version that the alias has now; if refused, the version that was refused."""
    before: int | None
    """The version that the alias had."""
    reason: str = ""
    checks: tuple[str, ...] = ()
    """The result of each gate; none for a promotion without a check."""
    report: str | None = None
    """Path of the report, below the model's folder."""


class RegisteredModel(Document):
    """registry.json of one model."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.registry"] = "batchland.registry"
    name: str
    versions: tuple[ModelVersion, ...] = ()
    aliases: dict[str, int] = Field(default_factory=dict)
    history: tuple[Change, ...] = ()
    """The oldest first."""

    def aliases_of(self, version: ModelVersion) -> str:
        """`production, staging`, or nothing."""
        return ", ".join(alias for alias, number in self.aliases.items() if number == version.version)


class Reference(NamedTuple):
    """`landmarks@production`: a model's name, and an alias or a number."""

    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "Reference | None":
        """None if the text is not a reference (then it is a path)."""
        found = _REFERENCE.fullmatch(text)
        return cls(*found.groups()) if found and not text.endswith(".onnx") else None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Found(NamedTuple):
    """The version that a reference means now."""

    file: Path
    version: str
    sha256: str | None
    """None where the registry does not know it."""


class FolderRegistry:
    """The registry in a folder. Methods raise UsageError for a name, an alias or a version that does not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The models, in order. Raises UsageError if the folder does not exist."""
        if not self.folder.is_dir():
            raise UsageError(
                f"{self.folder}: is not a folder, so there is no registry; `batchland models add` makes one"
            )
        return sorted(path.parent.name for path in self.folder.glob(f"*/{DOCUMENT}"))

    def read(self, name: str) -> RegisteredModel:
        """Versions, aliases and history of a model."""
        path = self.folder / name / DOCUMENT
        try:
            return RegisteredModel.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            near = near_miss(name.partition("@")[0], self.names())
            known = f"did you mean {near}?" if near else f"it has {first_few(self.names()) or 'none'}"
            raise UsageError(f"{self.folder}: there is no model {name} in this registry; {known}") from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise UsageError(f"{path}: is not a registry that this version of batchland can read") from error

    def version(self, reference: Reference) -> ModelVersion:
        """The version that a reference means."""
        model = self.read(reference.name)
        number = reference.version if reference.version.isdecimal() else model.aliases.get(reference.version)
        for version in model.versions:
            if str(version.version) == str(number):
                return version
        missing = f"{'version' if reference.version.isdecimal() else 'alias'} {reference.version}"
        aliases = first_few(list(model.aliases), 8) or "none; `batchland models promote` gives one"
        versions = first_few([str(version.version) for version in model.versions], 8) or "none"
        raise UsageError(f"{self.folder}: {reference.name} has no {missing}; versions: {versions}; aliases: {aliases}")

    def file(self, name: str, version: int) -> Path:
        """The ONNX file of a version."""
        return self.folder / name / str(version) / f"{name}.onnx"

    def find(self, reference: Reference) -> Found:
        """The file of a version. Raises ModelError, also if it is not the file that was added, and InputError."""
        try:
            version = self.version(reference)
        except UsageError as error:
            raise ModelError(str(error)) from error
        file = self.file(reference.name, version.version)
        if not file.is_file():
            raise ModelError(f"{file}: is missing in the registry; restore it, or promote another version")
        try:
            with file.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise read_error(error, str(file), wrong=ModelError) from error
        if sha256 != version.sha256:
            raise ModelError(
                f"{file}: was replaced after it was added as version {version.version} (sha256 {sha256[:12]}, not "
                f"{version.sha256[:12]}); restore it, or add the new file with `batchland models add` and promote that"
            )
        return Found(file, str(version.version), version.sha256)

    def add(self, name: str, source: Path, note: str = "") -> ModelVersion:
        """Copy an ONNX file and its canaries into the registry, as the next version. No alias changes.

        Raises ModelError if the file cannot be used, UsageError if it is the newest version already, OutputError.
        """
        if not re.fullmatch(SAFE_NAME, name):
            raise UsageError(f"model name {name!r}: should have only letters, digits, '.', '_' and '-'")
        session = open_session(source, "cpu")
        with self._locked(name, new=True) as model:
            number = max((version.version for version in model.versions), default=0) + 1
            if model.versions and model.versions[-1].sha256 == session.sha256:
                raise UsageError(f"{source}: is version {number - 1} of {name} already")
            with new_folder(self.folder / name / str(number)) as folder:
                shutil.copyfile(source, folder / f"{name}.onnx")
                if canaries_path(source).exists():
                    shutil.copyfile(canaries_path(source), canaries_path(folder / f"{name}.onnx"))
            added = ModelVersion(
                version=number,
                sha256=session.sha256,
                added_at=_now(),
                added_by=_who(),
                source=str(source.absolute()),
                note=note,
                architecture=session.card.architecture,
                classes=len(session.card.classes),
            )
            self._write(model.model_copy(update={"versions": (*model.versions, added)}))
        return added

    def promote(
        self,
        reference: Reference,
        alias: str,
        *,
        reason: str = "",
        checks: tuple[str, ...] = (),
        report: str | None = None,
        refused: bool = False,
        seen: RegisteredModel | None = None,
    ) -> Change:
        """Give an alias to a version. checks: results of the gates. refused: record only that a gate refused it.

        seen: the model when the gates were checked. Raises LockedError if the alias has another version since then.
        """
        if not re.fullmatch(SAFE_NAME, alias) or alias.isdecimal():
            raise UsageError(f"alias {alias!r}: should have only letters, digits, '.', '_' and '-', and be no number")
        number = self.version(reference).version
        action: Literal["refuse", "promote"] = "refuse" if refused else "promote"
        return self._change(seen or self.read(reference.name), action, alias, number, reason, checks, report)

    def rollback(self, name: str, alias: str, reason: str = "") -> Change:
        """Give an alias back to the version that had it before."""
        model = self.read(name)
        versions = promoted(model, alias)
        if len(versions) < 2:
            now = f"it had no version before {versions[0]}" if versions else "there is no such alias"
            raise UsageError(f"{self.folder}: {name}@{alias} cannot be rolled back; {now}")
        return self._change(model, "rollback", alias, versions[-2], reason)

    def _change(
        self,
        seen: RegisteredModel,
        action: Literal["promote", "rollback", "refuse"],
        alias: str,
        number: int,
        reason: str,
        checks: tuple[str, ...] = (),
        report: str | None = None,
    ) -> Change:
        with self._locked(seen.name) as model:
            now = model.aliases.get(alias)
            if now != seen.aliases.get(alias):
                raise LockedError(
                    f"{self.folder}: {model.name}@{alias} became version {now} meanwhile; look at it, then run the "
                    "same command again"
                )
            change = Change(
                at=_now(),
                by=_who(),
                action=action,
                alias=alias,
                version=number,
                before=now,
                reason=reason,
                checks=checks,
                report=report,
            )
            aliases = model.aliases if action == "refuse" else model.aliases | {alias: number}
            self._write(model.model_copy(update={"aliases": aliases, "history": (*model.history, change)}))
        return change

    def _write(self, model: RegisteredModel) -> None:
        write_file(self.folder / model.name / DOCUMENT, model.model_dump_json(indent=2) + "\n")

    @contextmanager
    def _locked(self, name: str, *, new: bool = False) -> Iterator[RegisteredModel]:
        """The model as it is now, while no other process can change it. new: it need not exist."""
        folder = self.folder / name
        try:
            folder.mkdir(parents=True, exist_ok=new)
        except FileExistsError:
            pass
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror}); {write_remedy(error)}") from error
        with locked(folder / ".lock", f"model {name} of the registry", wait=_LOCK_WAIT):
            yield self.read(name) if not new or (folder / DOCUMENT).exists() else RegisteredModel(name=name)


def promoted(model: RegisteredModel, alias: str) -> list[int]:
    """The versions that an alias can be rolled back to, the oldest first, and its present one."""
    versions: list[int] = []
    for change in model.history:
        if change.alias != alias or change.action == "refuse":
            continue
        if change.action == "promote" and versions[-1:] != [change.version]:
            versions.append(change.version)
        elif change.action == "rollback":
            while versions and versions[-1] != change.version:
                versions.pop()
    return versions


def _who() -> str:
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
