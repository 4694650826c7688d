"""The page about near-duplicates: their pictures, group by group."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batchland.embeddings.duplicates import Duplicates
from batchland.report.html import check_new_page, render_page
from batchland.report.options import ReportOptions
from batchland.report.pictures import Thumbnails
from batchland.system.text import aligned, count, counted, images, one_line

MAX_GROUPS: Final = 200
"""Groups on the page."""
MAX_SHOWN: Final = 12
"""Images of a group on the page."""
_TEMPLATE: Final = "duplicates.html.j2"
_LINES: Final = 20
"""Groups on the terminal."""


def duplicates_page(found: Duplicates, roots: Mapping[str, str], options: ReportOptions) -> str:
    """One HTML document. Groups with images of several predictions come first, then large ones.

    roots: the scored folder of each of the predictions.
    """
    chosen = sorted(found.groups, key=lambda group: (not group.across, -len(group.images)))[:MAX_GROUPS]
    budget = options.picture_bytes // len(roots)
    makers = {source: Thumbnails(Path(root), options.thumbnail_side, budget) for source, root in roots.items()}
    groups = [
        (group, [(each, makers[each.predictions].make(each.image, None)) for each in group.images[:MAX_SHOWN]])
        for group in chosen
    ]
    return render_page(
        _TEMPLATE,
        inputs=options.inputs,
        found=found,
        groups=groups,
        headline=duplicates_headline(found),
    )


def check_duplicates_page(path: Path, options: ReportOptions) -> None:
    """Raise UsageError if the page of the predictions `options.inputs` may not be written to `path`."""
    check_new_page(path, _TEMPLATE, "an earlier page of copies in the same predictions", options)


def duplicates_headline(found: Duplicates) -> str:
    """The result in one sentence."""
    if not found.groups:
        return f"No copies among {images(found.images)}."
    members = sum(len(group.images) for group in found.groups)
    across = sum(group.across for group in found.groups)
    identical = sum(group.identical for group in found.groups)
    parts = [f"{counted(identical, 'group')} of identical files" if identical else ""]
    if len(found.predictions) > 1:
        parts.append(f"{counted(across, 'group')} with images of more than one of the predictions")
    more = f": {', '.join(part for part in parts if part)}" if any(parts) else ""
    return f"{count(members)} of {images(found.images)} have copies, in {counted(len(found.groups), 'group')}{more}."


def duplicates_text(found: Duplicates) -> str:
    """For the terminal. Ends with a newline."""
    lines = [duplicates_headline(found)]
    if found.blank:
        lines.append(f"note: {images(found.blank)} of one colour were not compared")
    if found.without_signals:
        lines.append(f"note: {images(found.without_signals)} without signals were only compared by sha256")
    if found.approximate:
        lines.append("note: an index was used, which may miss some copies")
    several = len(found.predictions) > 1
    rows = [
        [
            str(number) if first else "",
            "equal" if image.distance == 0 else f"{image.distance:.2f}",
            "mirrored" if image.mirrored else "",
            one_line(image.label or "", 30),
            *([one_line(image.predictions, 40)] if several else []),
            one_line(image.image, 70),
        ]
        for number, group in enumerate(found.groups[:_LINES], 1)
        for first, image in ((image is group.images[0], image) for image in group.images)
    ]
    if rows:
        head = ["group", "distance", "", "first choice", *(["predictions"] if several else []), "image"]
        lines += aligned([head, *rows], ">><" + "<" * (len(head) - 3))
    if len(found.groups) > _LINES:
        lines.append(f"and {counted(len(found.groups) - _LINES, 'further group')}")
    return "\n".join(lines) + "\n"
