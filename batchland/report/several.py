"""The page, the tables and the text about several evaluations at once."""

import csv
import io
import os
from pathlib import Path
from typing import Final

from batchland.evaluation.saved import check_folder
from batchland.evaluation.several import SeveralCompared
from batchland.report.findings import LEVEL
from batchland.report.html import render_page
from batchland.report.options import ReportOptions
from batchland.system.csv_files import csv_text
from batchland.system.files import write_file
from batchland.system.text import (
    aligned,
    count,
    first_few,
    images,
    interval,
    markdown_text,
    one_line,
    p_value,
    percent,
    points,
    visible,
)

SEVERAL_FILES: Final = ("report.html", "pairs.csv", "summary.json")


def several_headline(compared: SeveralCompared) -> str:
    """Which model is best, or which ones may be."""
    best = [visible(model.name) for model in compared.models if model.maybe_best]
    if len(best) == 1:
        return f"{best[0]} is better than all others by more than chance."
    if len(best) == len(compared.models):
        return f"No model is worse than {best[0]} by more than chance."
    verb = "does" if len(best) == 2 else "do"
    return f"{first_few(best[1:], 5)} {verb} not differ from {best[0]} by more than chance; the others are worse."


def several_text(compared: SeveralCompared) -> str:
    """For the terminal. Ends with a newline."""
    lines = [f"{len(compared.models)} models, {images(compared.images)} that all scored", several_headline(compared)]
    mark = "best" if sum(model.maybe_best for model in compared.models) == 1 else "may be the best"
    models = [("model", "accuracy", "interval", "", "report")]
    models += [
        (one_line(model.name, 32), percent(model.accuracy.value), interval(model.accuracy),
         mark if model.maybe_best else "", visible(model.report or model.source))
        for model in compared.models
    ]  # fmt: skip
    lines += [f"  {line}" for line in aligned(models, "<><<<")]
    rows = [("pair", "difference", "p, adjusted", "")]
    rows += [
        (f"{one_line(pair.higher, 24)} less {one_line(pair.lower, 24)}", points(pair.difference),
         p_value(pair.p_adjusted), "more than chance" if pair.p_adjusted < LEVEL else "")
        for pair in compared.pairs
    ]  # fmt: skip
    lines += [f"  {line}" for line in aligned(rows, "<><<")]
    if compared.by_content:
        lines.append(f"note: {images(compared.by_content)} with different paths, matched by the content of the files.")
    if compared.left_out:
        lines.append(f"note: {images(compared.left_out)} not in all of them, or failed or relabelled, so not compared.")
    return "\n".join(lines) + "\n"


def several_markdown(compared: SeveralCompared) -> str:
    """The same as Markdown. Ends with a newline."""
    lines = [f"## {len(compared.models)} models, {images(compared.images)} that all scored", ""]
    lines += [markdown_text(several_headline(compared)), ""]
    lines += ["| model | accuracy | interval |", "| --- | ---: | --- |"]
    lines += [
        f"| {markdown_text(model.name)} | {percent(model.accuracy.value)} | {interval(model.accuracy)} |"
        for model in compared.models
    ]
    lines += ["", "| pair | difference | p, adjusted |", "| --- | ---: | --- |"]
    lines += [
        f"| {markdown_text(pair.higher)} less {markdown_text(pair.lower)} | {points(pair.difference)} "
        f"| {p_value(pair.p_adjusted)} |"
        for pair in compared.pairs
    ]
    return "\n".join(lines) + "\n"


def write_several(compared: SeveralCompared, out: str | os.PathLike[str], options: ReportOptions | None = None) -> Path:
    """Write report.html, pairs.csv and summary.json into the folder `out`, and return the page's path.

    Raises UsageError if the folder holds other files, OutputError if it cannot be written.
    """
    options = options or ReportOptions()
    folder = Path(out)
    check_folder(folder, SEVERAL_FILES, inputs=options.inputs, overwrite=options.overwrite)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    rows = [pair.model_dump() for pair in compared.pairs]
    writer.writerow(rows[0])
    writer.writerows([csv_text(pair.pop("higher")), csv_text(pair.pop("lower")), *pair.values()] for pair in rows)
    page = render_page(
        "several.html.j2",
        inputs=options.inputs,
        compared=compared,
        headline=several_headline(compared),
        cells={(pair.higher, pair.lower): pair for pair in compared.pairs},
        level=LEVEL,
        options=options,
        count=count,
    )
    write_file(folder / "report.html", page)  # first: it says what the others are made from
    write_file(folder / "pairs.csv", "\ufeff" + text.getvalue())
    write_file(folder / "summary.json", compared.model_dump_json(indent=2) + "\n")
    return folder / "report.html"
