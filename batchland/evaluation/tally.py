"""Sums over all outcomes that the figures are computed from, added up block by block."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.averages import Cells
from batchland.evaluation.calibration import ROUND_THRESHOLDS, bins_of, round_group
from batchland.evaluation.counts import KeyCounts, Sample, ScoreCounts, Sums
from batchland.evaluation.curves import CurveCounts
from batchland.evaluation.label_errors import CHOICES, FITTED_IMAGES, LabelledChoices
from batchland.evaluation.matching import EXAMPLES
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import FailureGroup

MIN_PROBABILITY: Final = float(np.finfo(np.float32).eps)
"""Least probability of the true class in the log loss."""


class Tally:
    """Sums and counts over outcomes; `add` takes one block after another."""

    def __init__(self, classes: int, options: EvaluateOptions, reviewed: Mapping[int, bool]) -> None:
        """reviewed: as in Matches."""
        self.classes = classes
        self.images = self.scored = self.reviewed = self.corrected = 0
        self._reviewed = np.array(list(reviewed), np.int64)
        self._corrected = np.array([row for row, changed in reviewed.items() if changed], np.int64)
        self.kept: int | None = None
        """Choices that every scored image has; None before the first scored one."""
        self.ranks = np.zeros(1, np.int64)
        """Scored images by rank of the true class, from 1; [0] holds those beyond the choices kept."""
        self.failed = np.zeros(classes, np.int64)
        """Failed images by true class."""
        self.bins = Sums(options.bins)
        """Sums for each equal-width bin of the probability."""
        self.by_truth, self.by_prediction = Sums(classes), Sums(classes)
        self.round = Sums(len(ROUND_THRESHOLDS) + 1)
        """Sums for each number of round thresholds that the probability reaches."""
        self.squared_error = 0.0
        """Sum of the squared differences between the first choice's probability and 1 if it is right, 0 if not."""
        self.log_loss = np.zeros(2)
        """Sums of the smallest and largest value that the choices kept allow; equal where they hold the true class."""
        self.brier = np.zeros(2)
        self.complete = True
        """Whether the probabilities of all classes are known of all scored images."""
        self.scores = ScoreCounts()
        """First choices by predicted class, probability and whether they are right."""
        self.curves = CurveCounts(classes)
        """Probabilities by class and whether it is the true one: of all classes, or of the choices kept."""
        self.has_choices_only = self.has_all_scores = False
        """Whether `curves` has only the choices kept of some images, and all probabilities of some."""
        self.accepted = self.accepted_wrong = self.asked = 0
        """Scored images by decision, and wrong ones among those accepted."""
        self._confusion = KeyCounts()
        self._failures: dict[str, tuple[int, list[str]]] = {}
        self._sample = Sample(FITTED_IMAGES, options.seed)

    def add(self, outcomes: Outcomes) -> None:
        """Add a block."""
        ok = outcomes.ok
        self.images += len(ok)
        self._add_failures(outcomes)
        if not ok.any():
            return
        self.scored += int(ok.sum())
        self.reviewed += int(np.isin(self._reviewed, outcomes.rows[ok]).sum())
        self.corrected += int(np.isin(self._corrected, outcomes.rows[ok]).sum())
        self.kept = outcomes.kept if self.kept is None else min(self.kept, outcomes.kept)
        truth, predicted, rank = outcomes.truth[ok], outcomes.predicted[ok], outcomes.true_rank[ok]
        chosen = outcomes.probability[ok]
        probability, right = chosen.astype(np.float64), truth == predicted
        self._confusion.add(truth * self.classes + predicted)
        self.scores.add(predicted, chosen, right)
        self._add_scores(outcomes)
        self.bins.add(bins_of(probability, len(self.bins.images)), probability, right)
        self.by_truth.add(truth, probability, right)
        self.by_prediction.add(predicted, probability, right)
        self.round.add(round_group(chosen), probability, right)
        ranks = np.bincount(rank, minlength=len(self.ranks))
        ranks[: len(self.ranks)] += self.ranks
        self.ranks = ranks
        self.squared_error += float(((probability - right) ** 2).sum())
        self._add_proper_scores(outcomes)
        self._add_decisions(outcomes)
        entering = np.flatnonzero(ok)[self._sample.add(len(chosen))]
        choices = np.zeros((len(entering), CHOICES), np.float32)
        choices[:, : outcomes.kept] = outcomes.choices[entering, :CHOICES]
        rank, of_label = outcomes.true_rank[entering], outcomes.true_probability[entering]
        self._sample.keep(choices, rank, of_label, outcomes.truth[entering], outcomes.predicted[entering])

    @property
    def cells(self) -> Cells:
        """The confusion matrix."""
        codes, images = self._confusion.result()
        return Cells(codes // self.classes, codes % self.classes, images, self.classes)

    @property
    def right(self) -> int:
        """Number of scored images with a right first choice."""
        return int(self.by_truth.right.sum())

    @property
    def sample(self) -> LabelledChoices:
        """A random sample of the scored images."""
        if not self._sample.columns:
            floats, integers = np.zeros(0, np.float32), np.zeros(0, np.int64)
            return LabelledChoices(np.zeros((0, 0), np.float32), integers, floats, integers, integers)
        choices, *others = self._sample.columns
        return LabelledChoices(choices[:, : self.kept], *others)

    @property
    def failures(self) -> tuple[FailureGroup, ...]:
        """Failed images by error code, the most frequent first."""
        return tuple(
            FailureGroup(error_code=code, images=images, examples=tuple(examples))
            for code, (images, examples) in sorted(self._failures.items(), key=lambda item: (-item[1][0], item[0]))
        )

    def _add_failures(self, outcomes: Outcomes) -> None:
        failed = ~outcomes.ok
        if not failed.any():
            return
        self.failed += np.bincount(outcomes.truth[failed], minlength=self.classes)
        mask = pa.array(failed)
        codes, images = outcomes.error_codes.filter(mask).fill_null("unknown"), outcomes.images.filter(mask)
        for code, count in Counter(codes.to_pylist()).items():
            before, examples = self._failures.get(code, (0, []))
            if len(examples) < EXAMPLES:
                examples = [*examples, *images.filter(pc.equal(codes, code))[:EXAMPLES].to_pylist()][:EXAMPLES]
            self._failures[code] = before + count, examples

    def _add_scores(self, outcomes: Outcomes) -> None:
        has_all = outcomes.has_all
        if has_all.any():
            self.has_all_scores = True
            self.curves.add_all(outcomes.log_probabilities, outcomes.truth[has_all])
        others = outcomes.ok & ~has_all
        if others.any():
            self.has_choices_only |= outcomes.kept < self.classes
            chosen, choices = (each.compress(others, axis=0) for each in (outcomes.chosen, outcomes.choices))
            hits = chosen == outcomes.truth[others, None]
            self.curves.add(chosen.ravel(), choices.ravel(), hits.ravel())

    @property
    def areas_of(self) -> Literal["all", "some", "kept"]:
        """See `EvaluationSummary.areas_of`."""
        if not self.has_choices_only:
            return "all"
        return "some" if self.has_all_scores else "kept"

    def _add_decisions(self, outcomes: Outcomes) -> None:
        decision = outcomes.facts["decision"]
        if decision.null_count == len(decision):
            return
        accepted = pc.fill_null(pc.equal(decision, "accept"), False).to_numpy(zero_copy_only=False)
        self.accepted += int(accepted.sum())
        self.accepted_wrong += int((accepted & ~outcomes.right).sum())
        self.asked += len(decision) - decision.null_count - int(accepted.sum())

    def _add_proper_scores(self, outcomes: Outcomes) -> None:
        """Add log loss and Brier score, or their bounds where the true class is beyond the choices kept."""
        ok = outcomes.ok
        true = outcomes.true_probability[ok].astype(np.float64)
        squares, kept, complete = outcomes.squares[ok], outcomes.choices.compress(ok, axis=0), outcomes.complete[ok]
        self.complete &= bool(complete.all())
        others = self.classes - outcomes.kept
        rest = np.maximum(1 - np.einsum("ij->i", kept, dtype=np.float64), 0) if others else np.zeros(len(true))
        most = np.minimum(rest, kept[:, -1]) if outcomes.kept else rest  # of any class that was not kept
        beyond = np.isnan(true)
        for side, (own, unseen) in enumerate(((most, rest**2 / max(others, 1)), (np.zeros(len(true)), rest * most))):
            found = np.where(beyond, own, true)
            clipped = np.clip(found, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
            self.log_loss[side] -= np.log(clipped).sum()
            self.brier[side] += (squares + np.where(complete, 0, unseen) - 2 * found + 1).sum()
