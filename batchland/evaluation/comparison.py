"""Compare two evaluations of the same images: two models, or two nights. All statistics are paired by image.

comparison = compare(read_report("monday/"), read_report("tuesday/"))
write_comparison(comparison, "changes/")
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from batchland._version import __version__
from batchland.errors import UsageError
from batchland.evaluation.differences import FLIP_KINDS, class_differences, flips, headline_differences
from batchland.evaluation.intervals import mcnemar_exact
from batchland.evaluation.options import CompareOptions
from batchland.evaluation.pairs import Pairs, pair
from batchland.evaluation.report_names import different_names, different_sources, report_folder
from batchland.evaluation.schema import Agreement, ComparedEvaluation, ComparisonSummary, PairAccount

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`: the summary, and the tables of its files."""

    summary: ComparisonSummary
    per_class: pa.Table
    flips: pa.Table
    image_root: Path
    """Folder of the images, for thumbnails."""


def compare(
    a: "Report | Evaluation",
    b: "Report | Evaluation",
    options: CompareOptions | None = None,
    *,
    matched: tuple[Pairs, PairAccount] | None = None,
) -> Comparison:
    """Compare B with A over the images that both scored. Differences are B - A.

    a, b: evaluations, or reports from `read_report`. matched: `pair(a, b)`, if it is there already. Raises UsageError
    if they have no image in common.
    """
    options = options or CompareOptions()
    pairs, account = matched or pair(a, b)
    if not account.paired:
        raise UsageError(
            f"{' and '.join(different_sources([a, b]))}: no image was scored with the same label in both "
            f"({account.images_a} and {account.images_b} images, {account.images_a - account.only_a} of them in both); "
            f"compare runs over the same images"
        )
    right_a, right_b = (side.predicted == pairs.truth for side in (pairs.a, pairs.b))
    only_a, only_b = right_a & ~right_b, right_b & ~right_a
    flipped = flips(pairs, only_a, only_b)
    kinds = flipped["change"].to_pylist()
    names = different_names([a, b])
    summary = ComparisonSummary(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        a=_side_document(a, names[0]),
        b=_side_document(b, names[1]),
        options=options.model_dump(mode="json"),
        resamples=options.resamples,
        account=account,
        figures=headline_differences(pairs, options),
        agreement=Agreement(
            both_right=int((right_a & right_b).sum()),
            only_a_right=int(only_a.sum()),
            only_b_right=int(only_b.sum()),
            both_wrong=int((~right_a & ~right_b).sum()),
            p_value=mcnemar_exact(int(only_a.sum()), int(only_b.sum())),
        ),
        flips={kind: kinds.count(kind) for kind in FLIP_KINDS},
        compared_with={"batchland": __version__, **{name: version(name) for name in ("numpy", "pyarrow", "scipy")}},
    )
    root = options.images or Path(a.summary.options.get("images") or a.summary.images)
    return Comparison(summary, class_differences(pairs, only_a, only_b, options.confidence), flipped, root)


def _side_document(side: "Report | Evaluation", name: str) -> ComparedEvaluation:
    summary = side.summary
    return ComparedEvaluation(
        name=name,
        report=report_folder(side),
        evaluated_at=summary.created_at,
        predictions=summary.predictions,
        run_id=summary.run_id,
        model=summary.model,
        labels=summary.labels,
    )
