"""The images that two evaluations have in common, with both answers, and the account of all others.

Classes are matched by label, so the two models may order them differently.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from batchland.evaluation.intervals import Floats, Ints
from batchland.evaluation.join import Join
from batchland.evaluation.schema import PairAccount

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report


class Side(NamedTuple):
    """One model's answers for the paired images."""

    predicted: Ints
    """First choice, as an index into Pairs.classes."""
    probability: Floats
    """Probability of the first choice."""
    true_rank: Ints
    """Rank of the true class among the choices kept, from 1; 0 beyond them."""
    true_probability: Floats
    """NaN beyond the choices kept."""
    kept: int
    """Choices kept per image."""


@dataclass(frozen=True)
class Pairs:
    """The images that both scored, with the same label in both, in A's order; all arrays of that length."""

    truth: Ints
    """True class, as an index into `classes`."""
    a: Side
    b: Side
    classes: tuple[str, ...]
    """Labels of A's classes, then those that only B has."""
    changed_images: pa.Array
    """Names of those of them with different first choices, in the same order."""
    changed_sizes: pa.Array
    """Bytes of these, when A read them."""

    @property
    def identical(self) -> bool:
        """Whether both sides have the same answers and probabilities for all images."""
        return self.a.kept == self.b.kept and all(
            np.array_equal(getattr(self.a, name), getattr(self.b, name), equal_nan=True)
            for name in ("predicted", "probability", "true_rank", "true_probability")
        )


def pair(a: "Report | Evaluation", b: "Report | Evaluation") -> tuple[Pairs, PairAccount]:
    """Match the images of two evaluations, and count those that do not match. There may be no pair.

    The memory that a pair takes does not depend on its name.
    """
    join = Join([a, b])
    blocks, names, sizes = [_NO_PAIRS], [pa.array([], pa.string())], [pa.array([], pa.int64())]
    counts: Counter[str] = Counter()
    for block in join.blocks():
        alike = block.truth[:, 0] == block.truth[:, 1]
        ok_a, ok_b = block.ok.T
        for name, flags in (
            ("relabelled", ~alike),
            ("failed_a", alike & ~ok_a & ok_b),
            ("failed_b", alike & ok_a & ~ok_b),
            ("failed_both", alike & ~ok_a & ~ok_b),
        ):
            counts[name] += int(np.count_nonzero(flags))
        paired = block.take(alike & ok_a & ok_b)
        blocks.append(paired[2:])
        changed = paired.take(paired.predicted[:, 0] != paired.predicted[:, 1])
        names.append(changed.images)
        sizes.append(changed.file_size)
    row, _, truth, *answers = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
    order = np.argsort(row[:, 0])
    kinds = (np.int64, np.float64, np.int64, np.float64)  # fields of Side
    columns = [column[order].astype(kind) for column, kind in zip(answers, kinds, strict=True)]
    sides = [Side._make([*(column[:, i] for column in columns), each.summary.top_k]) for i, each in enumerate((a, b))]
    predicted = answers[0]
    place = np.argsort(row[predicted[:, 0] != predicted[:, 1], 0])  # of the changed ones, as they were joined
    pairs = Pairs(
        truth=truth[order, 0].astype(np.int64),
        a=sides[0],
        b=sides[1],
        classes=join.classes,
        changed_images=pa.concat_arrays(names).take(pa.array(place)),
        changed_sizes=pa.concat_arrays(sizes).take(pa.array(place)),
    )
    names_a, names_b = ([name.label for name in each.summary.classes] for each in (a, b))
    forms_a, forms_b = ({*map(join.form, names)} for names in (names_a, names_b))
    account = PairAccount(
        images_a=join.rows[0],
        images_b=join.rows[1],
        paired=len(pairs.truth),
        by_content=join.by_content,
        only_a=join.rows[0] - join.joined,
        only_b=join.rows[1] - join.joined,
        **{name: counts[name] for name in ("relabelled", "failed_a", "failed_b", "failed_both")},
        classes=len(join.classes),
        classes_only_a=tuple(name for name in names_a if join.form(name) not in forms_b),
        classes_only_b=tuple(name for name in names_b if join.form(name) not in forms_a),
    )
    return pairs, account


_NO_PAIRS: Final = tuple(
    np.zeros((0, 2), kind)
    for kind in (np.int64, np.bool_, np.int32, np.int32, np.float32, np.int32, np.float32)  # fields of Joined
)
