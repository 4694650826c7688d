"""Match the class names of labels to a model's classes."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from batchland.errors import UsageError
from batchland.models.card import ClassName, class_names
from batchland.system.names import composed
from batchland.system.text import counted, first_few, near_miss


@dataclass(frozen=True)
class ClassMatch:
    """The model's class of each class name in the labels."""

    index: dict[str, int]
    renamed: dict[str, str]
    """Names that match only without their number, and the folder of the matching class."""
    unknown: tuple[str, ...]


def match_classes(names: Collection[str], classes: Sequence[ClassName]) -> ClassMatch:
    """Match each name with the model's class folders, then its labels, then its labels without the folder's number.

    Names that differ only in that number are unknown. `3.0` also matches `3`, because many programs write whole numbers
    so. Composed and decomposed Unicode characters (NFC, NFD) match each other, unless two classes differ only in that.
    """
    by_folder = name_indices([name.folder for name in classes])
    by_label = name_indices([name.label for name in classes])
    index: dict[str, int] = {}
    renamed: dict[str, int] = {}
    for name in sorted(names):
        for form in (name, re.sub(r"^(\d+)\.0+$", r"\1", name)):
            exact = {found for indices in (by_folder, by_label) if (found := find_name(indices, form)) is not None}
            if len(exact) > 1:
                raise UsageError(
                    f"class name {form!r} is one class's folder and another's label; use folder names only"
                )
            if exact:
                index[name] = exact.pop()
                break
        else:
            if (found := find_name(by_label, class_names([name])[0].label)) is not None:
                renamed[name] = found
    counts = Counter(renamed.values())
    renamed = {name: found for name, found in renamed.items() if counts[found] == 1}
    index |= renamed
    unknown = tuple(name for name in sorted(names) if name not in index)
    return ClassMatch(index, {name: classes[found].folder for name, found in renamed.items()}, unknown)


def name_indices(names: Sequence[str]) -> dict[str, int]:
    """Index of each name, and of its composed form where that is no other name's."""
    forms = [composed(name) for name in names]
    counts = Counter(forms)
    unique = {form: index for index, form in enumerate(forms) if counts[form] == 1}
    return unique | {name: index for index, name in enumerate(names)}


def find_name(indices: dict[str, int], name: str) -> int | None:
    """The index of a name, or of its composed form. indices: see `name_indices`."""
    return indices.get(name, indices.get(composed(name)))


def class_texts(classes: Sequence[ClassName]) -> list[str]:
    """All names of the classes: labels and folders."""
    return [name for pair in classes for name in (pair.label, pair.folder)]


def unknown_classes_message(source: str, unknown: Sequence[str], classes: Sequence[ClassName]) -> str:
    """One line that lists the unknown names, similar known ones, and the model's classes."""
    known = class_texts(classes)
    guesses = ((name, near_miss(name, known)) for name in unknown)
    some = first_few([f"{name!r} (did you mean {near!r}?)" if near else repr(name) for name, near in guesses], 10)
    return (
        f"{source}: {counted(len(unknown), 'class name')} that the model does not have: "
        f"{some}; the model's classes are {enumerate_names([name.label for name in classes])}; correct the names"
    )


def enumerate_names(names: Sequence[str], limit: int = 20) -> str:
    """The first `limit` names, quoted, and the number of the others."""
    return first_few([*map(repr, names)], limit)
