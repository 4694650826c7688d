"""The page and the text about images that are similar to one."""

from pathlib import Path
from typing import Final

from batchland.embeddings.similar import FoundSimilar, Similar
from batchland.report.html import check_new_page, render_page
from batchland.report.options import ReportOptions
from batchland.report.pictures import Thumbnails
from batchland.system.text import aligned, images, one_line, percent

_TEMPLATE: Final = "similar.html.j2"


def similar_page(found: FoundSimilar, options: ReportOptions) -> str:
    """One HTML document: the given image, and those that are similar."""
    asked = Thumbnails(found.query.parent, 2 * options.thumbnail_side, options.picture_bytes // 10)
    budget = options.picture_bytes * 9 // 10 // len(found.roots)
    makers = {name: Thumbnails(Path(root), options.thumbnail_side, budget) for name, root in found.roots.items()}
    cards = [(each, makers[each.predictions].make(each.image, each.file_size)) for each in found.result.similar]
    return render_page(
        _TEMPLATE,
        inputs=options.inputs,
        found=found.result,
        asked=asked.make(found.query.name, None),
        cards=cards,
    )


def check_similar_page(path: Path, options: ReportOptions) -> None:
    """Raise UsageError if the page of `options.inputs`, image and predictions, cannot become the file `path`."""
    check_new_page(path, _TEMPLATE, "an earlier page of the same image and predictions", options)


def similar_text(found: Similar) -> str:
    """For the terminal: a line for each image. Ends with a newline."""
    several = len(found.predictions) > 1
    if not found.similar:
        return f"{one_line(found.image, 70)}: no other image to compare with\n"
    rows = [
        [
            f"{each.similarity:.3f}",
            one_line(each.label or "", 30),
            percent(each.probability),
            *([one_line(each.predictions, 40)] if several else []),
            one_line(each.image, 70),
        ]
        for each in found.similar
    ]
    head = ["similarity", "first choice", "", *(["predictions"] if several else []), "image"]
    by_index = ", found with an index, which may miss some" if found.approximate else ""
    lines = [f"{one_line(found.image, 70)}: the most similar of {images(found.images)}{by_index}"]
    return "\n".join([*lines, *aligned([head, *rows], "><>" + "<" * (len(head) - 3))]) + "\n"
