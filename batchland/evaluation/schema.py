"""Schemas of the files of an evaluation and of a comparison: Arrow tables and JSON documents."""

from typing import Any, Final, Literal

import pyarrow as pa
from pydantic import Field

from batchland.models.card import ClassName
from batchland.predictions.schema import ModelInfo
from batchland.system.arrow import column
from batchland.system.documents import Count, Document


class Figure(Document):
    """A number, with its interval where it has one, at the confidence of the report's options."""

    value: float
    low: float | None = None
    high: float | None = None


class Bounds(Document):
    """Lower and upper bound of a figure."""

    low: float
    high: float


class Figures(Document):
    """The headline numbers, over the labelled images that were scored. None where the data does not allow one.

    Macro figures are means over the classes that have labelled images, each class counting the same.
    """

    top1: Figure | None
    """Share of images with a right first choice (accuracy). Wilson."""
    top3: Figure | None
    """Share with the right class among the first 3; None if fewer choices were kept. Wilson."""
    top5: Figure | None
    """Share with the right class among the first 5; None if fewer choices were kept. Wilson."""
    top1_with_failures: Figure | None
    """Accuracy if every failed image counts as wrong. Wilson."""
    balanced_accuracy: Figure | None
    """Mean of the classes' accuracies; the same number as macro_recall. Delta method."""
    macro_precision: Figure | None
    """Mean of the classes' precisions; 0 for a class never predicted. Delta method."""
    macro_recall: Figure | None
    """Mean of the classes' recalls. Delta method."""
    macro_f1: Figure | None
    """Mean of the F1 scores of the classes with labelled images; a class that is only predicted does not count, while
    scikit-learn counts it as 0. Delta method."""
    weighted_precision: Figure | None
    """Mean of the classes' precisions, weighted by support. Delta method."""
    weighted_recall: Figure | None
    """Mean of the classes' recalls, weighted by support: the same number as top1."""
    weighted_f1: Figure | None
    """Mean of the classes' F1 scores, weighted by support. Delta method."""
    mean_confidence: Figure | None
    """Mean probability of the first choice; above top1, the model is overconfident."""
    log_loss: Figure | None
    """Mean negative log of the true class's probability, nats. A probability below 1.2e-7 counts as that, so an image
    adds at most 15.9, as in scikit-learn for float32. None unless the predictions hold the probabilities of all
    classes: see `bounds`."""
    brier: Figure | None
    """Mean squared distance of all probabilities from the truth, 0 to 2. None where log_loss is."""
    brier_top1: Figure | None
    """Mean squared distance of the first choice's probability from being right (1) or wrong (0)."""
    ece: Figure | None
    """Expected calibration error: mean distance of confidence and accuracy over equal-width bins. Bootstrap."""
    mce: Figure | None
    """Maximum calibration error: the largest such distance of any bin."""
    failed_rate: Figure | None
    """Share of labelled images that the run could not read or score. Wilson."""
    ece_adaptive: Figure | None = None
    """Calibration error over bins with equal numbers of images. Bootstrap."""
    ece_classwise: Figure | None = None
    """Calibration error over predicted classes: their precision against the mean confidence. Bootstrap."""
    macro_average_precision: Figure | None = None
    """Mean area under the classes' precision-recall curves. Compare only figures with the same
    `areas_of`."""
    macro_auroc: Figure | None = None
    """Mean area under the classes' ROC curves, each class against all others. DeLong. Probabilities as for
    `macro_average_precision`."""


class LabelAccount(Document):
    """Numbers of images with predictions and labels, and of those without one of them."""

    predicted: Count
    """Rows of the predictions."""
    labelled: Count
    """Images with a label."""
    scored: Count
    """Images with a label and a successful prediction: what the figures are about."""
    failed: Count
    """Images with a label and a failed row."""
    unlabelled: Count
    """Predicted images without a label."""
    unlabelled_examples: tuple[str, ...]
    unpredicted: Count
    """Labelled images without a prediction."""
    unpredicted_examples: tuple[str, ...]
    missing_classes: tuple[str, ...]
    """Labels of the model's classes without a labelled image."""
    unknown_classes: dict[str, Count]
    """Names in the labels that the model does not have, and their images, left out as requested."""
    renamed_classes: dict[str, str]
    """Names in the labels that match only without their number, and the folder of the matching class."""
    empty_folders: tuple[str, ...]
    """Class folders without an image."""
    loose_images: Count
    """Images beside the class folders."""
    blank_labels: Count
    """Rows of a label table without a label."""
    reviewed: Count = 0
    """Scored images with a label that the corrections keep or replace."""
    corrected: Count = 0
    """Scored images with another label in the corrections."""


class ReliabilityBin(Document):
    """Images with a confidence in (lower, upper]; the first bin includes its lower end."""

    lower: float
    upper: float
    images: Count
    confidence: float | None
    """Mean."""
    accuracy: Figure | None


class CoveragePoint(Document):
    """Coverage and accuracy if answers with at least the probability `threshold` are taken, and the others go to a
    human."""

    threshold: float
    taken: Count
    to_human: Count
    """Scored images below the threshold; failed images are not counted here."""
    coverage: float
    """taken / scored."""
    accuracy: Figure | None
    """Accuracy of the taken answers."""


class Slice(Document):
    """Accuracy over a part of the images."""

    dimension: str
    value: str
    """If a dimension has more than 12 values, the weak ones (at most 200) come first, then the 11 largest. The last
    slice, `others (N)`, contains the other N values. Empty for images without a value; pages show `(none)`."""
    images: Count
    accuracy: Figure
    difference: float | None
    """Accuracy of this slice minus that of all other images."""
    p_value: float | None
    """P-value of Fisher's exact test against the other images, Holm-adjusted for all tested values, also those in
    `others`. None for `others`."""


class PairSlice(Document):
    """Accuracy over the images with two values of two own columns."""

    columns: tuple[str, str]
    values: tuple[str, str]
    images: Count
    accuracy: Figure
    difference: float
    """Accuracy here less that of all other images."""
    p_value: float
    """P-value of Fisher's exact test, one-sided, adjusted by Benjamini and Hochberg for all tested slices, weighted
    by size."""


class PairSlices(Document):
    """Slices by any two of the columns of `by`."""

    tested: Count
    """Slices of at least 20 images."""
    found: Count
    """Number of weak slices: those with an adjusted p-value below 0.1, so that about a tenth of them may be chance.
    None if the smallest p-value is 0.001 or more."""
    weakest: tuple[PairSlice, ...]
    """At most 200 of those found, the smallest p-value first."""


class AcceptRule(Document):
    """Accept an answer if its probability is at least the threshold."""

    threshold: float
    accepted: Count
    """Number of accepted labelled images."""
    wrong: Count
    """Number of wrong ones among those accepted."""
    coverage: float
    """Share of images accepted."""


class ClassRule(AcceptRule):
    """A rule for the answers of one class."""

    label: str


class Guarantee(Document):
    """Thresholds that keep a promise about the accepted answers, in the long run, for images like the labelled ones."""

    promise: str
    limit: float
    """Largest share of wrong answers among the accepted ones."""
    confidence: float
    """Probability, over the choice of the labelled images, that a rule keeps the promise."""
    images: Count
    """Number of labelled images that it is based on."""
    fewest_images: Count
    """Least number of accepted images for a promise, if none of them is wrong."""
    rule: AcceptRule | None
    """One rule for all answers; None if the images do not show that a threshold keeps the promise."""
    per_class: tuple[ClassRule, ...]
    """Rules for classes with enough images. All of them together keep their promises with that confidence."""


class Decisions(Document):
    """Results of the decisions in the predictions of a calibrated model."""

    accepted: Count
    """Labelled images that were scored, with the decision `accept`."""
    wrong: Count
    """Number of wrong ones among those accepted."""
    asked: Count
    error: Figure | None
    """wrong / accepted. Wilson. None if none is accepted."""


class FailureGroup(Document):
    """Labelled images that failed with the same code."""

    error_code: str
    images: Count
    examples: tuple[str, ...]


class LabelErrors(Document):
    """Mistakes that may be wrong labels: the rows of mistakes.parquet with `suspected_label_error`."""

    mistakes: Count
    suspected: Count
    share: float | None
    """Expected share of wrong labels among those suspected, if the model of label noise is right; None without one."""


class ConfusedPair(Document):
    """Images of one class that were predicted as another."""

    true_label: str
    predicted_label: str
    images: Count
    share: float
    """Share of the scored images of the true class."""


class LabelSource(Document):
    """Where the labels came from."""

    path: str
    kind: Literal["folder", "csv", "parquet"]
    fingerprint: str
    """sha256 over the images that were evaluated and their labels: two reports with the same one can be compared."""


class EvaluationSummary(Document):
    """`summary.json` of a report: every figure on its page. Written last, so that its presence means it is complete."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.evaluation"] = "batchland.evaluation"
    created_at: str
    """ISO 8601, UTC."""
    predictions: str
    """Path of the predictions, as it was given."""
    run_id: str
    model: ModelInfo
    classes: tuple[ClassName, ...]
    device: str
    provider: str
    top_k: Count
    """Choices that the predictions keep per image."""
    images: str
    """Absolute path of the scored root."""
    labels: LabelSource
    options: dict[str, Any]
    resamples: Count
    """Bootstrap resamples behind the intervals of the calibration errors."""
    account: LabelAccount
    figures: Figures
    most_confused: tuple[ConfusedPair, ...]
    """At most 20, by images."""
    reliability: tuple[ReliabilityBin, ...]
    coverage: tuple[CoveragePoint, ...]
    slices: tuple[Slice, ...]
    failures: tuple[FailureGroup, ...]
    areas_of: Literal["all", "some", "kept"] | None = None
    """Probabilities that average precision, AUROC and the curves are computed from: of all classes, or only of the
    `top_k` choices kept, where all other classes count as 0. `some`: of all classes for some images, of the choices
    kept for the others. Only figures with the same probabilities can be compared, and never those of `some`.
    None in reports of earlier versions, which used the choices kept."""
    bounds: dict[str, Bounds] = Field(default_factory=dict)
    """Bounds of log_loss and brier, if the predictions contain only the first k choices."""
    pair_slices: PairSlices | None = None
    """None unless `by` has at least two columns."""
    guarantees: tuple[Guarantee, ...] = ()
    """One entry per promise in the options."""
    decisions: Decisions | None = None
    """None if the predictions have no decisions."""
    label_errors: LabelErrors | None = None
    """None in reports of earlier versions."""
    strangers: Count | None = None
    """Scored images that are unlike the model's known photos; None if the model has no known photos."""
    versions: dict[str, str]
    """Versions of the packages that scored."""
    evaluated_with: dict[str, str]
    """Versions of the packages that evaluated."""


class Difference(Document):
    """A figure of two evaluations, over the images that both scored."""

    a: float
    b: float
    difference: float
    """b - a."""
    low: float | None = None
    """Ends of the difference's paired interval; None if it cannot be computed, for example if all answers are equal."""
    high: float | None = None


class Differences(Document):
    """The headline numbers of both. None if one of the two does not have the number."""

    top1: Difference
    top3: Difference | None
    top5: Difference | None
    balanced_accuracy: Difference
    macro_precision: Difference
    macro_f1: Difference
    mean_confidence: Difference
    brier_top1: Difference
    """Lower is better, as for log_loss and ece."""
    log_loss: Difference | None
    ece: Difference


class PairAccount(Document):
    """Images of the two evaluations, compared or not. `images_a` and `images_b` are the sums of the other numbers."""

    images_a: Count
    """Labelled images of A, failed ones included."""
    images_b: Count
    paired: Count
    """Images that both scored, with the same label: the compared images."""
    by_content: Count = 0
    """Images in both with different paths, paired by the sha256 of the file. All other pairs have the same path."""
    only_a: Count
    """Images in A, not in B."""
    only_b: Count
    relabelled: Count
    """Images in both, but with different labels."""
    failed_a: Count
    """Images that failed only in A."""
    failed_b: Count
    failed_both: Count
    classes: Count
    """Number of classes of at least one model."""
    classes_only_a: tuple[str, ...]
    """Classes of A's model only."""
    classes_only_b: tuple[str, ...]


class Agreement(Document):
    """Numbers of images that A, B, both or neither have right, and the test of the difference."""

    both_right: Count
    only_a_right: Count
    only_b_right: Count
    both_wrong: Count
    p_value: float
    """Exact McNemar, two-sided: that A and B are equally good."""


class ComparedEvaluation(Document):
    """One side of a comparison."""

    name: str
    """A name that differs from the other side's: of the model, the predictions' file or folder, or A and B."""
    report: str | None
    """Its folder, as it was given; None if it was evaluated just now."""
    evaluated_at: str
    predictions: str
    run_id: str
    model: ModelInfo
    labels: LabelSource


class ComparisonSummary(Document):
    """`summary.json` of a comparison. Written last, so that its presence means it is complete."""

    schema_version: Literal[1] = 1
    kind: Literal["batchland.comparison"] = "batchland.comparison"
    created_at: str
    """ISO 8601, UTC."""
    a: ComparedEvaluation
    b: ComparedEvaluation
    options: dict[str, Any]
    resamples: Count
    """Bootstrap resamples behind the interval of the calibration error's difference."""
    account: PairAccount
    figures: Differences
    agreement: Agreement
    flips: dict[Literal["broken", "fixed", "moved"], Count]
    """Images with different first choices, by kind of change; see flips.parquet."""
    compared_with: dict[str, str]
    """Versions of the packages that compared."""


PER_CLASS: Final = pa.schema(
    [
        column("class_index", pa.int32(), "Index of the class in the model's output.", nullable=False),
        column("folder", pa.string(), "The training folder of the class.", nullable=False),
        column("label", pa.string(), "Display name of the class.", nullable=False),
        column("support", pa.int64(), "Labelled images of the class that were scored.", nullable=False),
        column("correct", pa.int64(), "Of these, images with a right first choice.", nullable=False),
        column("accuracy", pa.float64(), "correct / support: the class's recall. Null without support."),
        column("accuracy_low", pa.float64(), "Lower end of its Wilson interval."),
        column("accuracy_high", pa.float64(), "Upper end of its Wilson interval."),
        column("predicted", pa.int64(), "Scored images classified as this class, right or wrong.", nullable=False),
        column("precision", pa.float64(), "correct / predicted. Null if the class was never predicted."),
        column("precision_low", pa.float64(), "Lower end of its Wilson interval."),
        column("precision_high", pa.float64(), "Upper end of its Wilson interval."),
        column("f1", pa.float64(), "2 correct / (support + predicted). Null without support."),
        column("mean_confidence", pa.float64(), "Mean probability of the first choice, over the class's images."),
        column(
            "average_precision",
            pa.float64(),
            "Area under its precision-recall curve. Null without images of it or of others.",
        ),
        column("average_precision_low", pa.float64(), "Lower end of its Wilson interval."),
        column("average_precision_high", pa.float64(), "Upper end of its interval."),
        column("auroc", pa.float64(), "Area under its ROC curve, against all other classes."),
        column("auroc_low", pa.float64(), "Lower end of its interval (DeLong, or Hanley and McNeil)."),
        column("auroc_high", pa.float64(), "Upper end of its interval."),
        column("most_confused_with", pa.string(), "Most frequent predicted class of its wrong images."),
        column("most_confused_images", pa.int64(), "Number of those images.", nullable=False),
        column("failed", pa.int64(), "Labelled images of the class that failed; not in support.", nullable=False),
    ]
)
"""`per_class.parquet` and `per_class.csv`: one row per class of the model, in class_index order."""


CURVES: Final = pa.schema(
    [
        column("label", pa.string(), "Label of the class; null for the means over all classes."),
        column("threshold", pa.float32(), "Smallest score that counts as the class. Null for means."),
        column("recall", pa.float64(), "Share of the class's images with at least that score.", nullable=False),
        column("precision", pa.float64(), "Share of the class among images with at least that score."),
        column("false_positive_rate", pa.float64(), "Share of the other images with at least that score."),
    ]
)
"""`curves.parquet`: points of each class's precision-recall and ROC curve against all other classes. The means have
two kinds of rows: the mean precision by recall, and the mean recall by false positive rate."""


CONFUSION: Final = pa.schema(
    [
        column("true_index", pa.int32(), "class_index of the true class.", nullable=False),
        column("true_label", pa.string(), "Label of the true class.", nullable=False),
        column("predicted_index", pa.int32(), "class_index of the predicted class.", nullable=False),
        column("predicted_label", pa.string(), "Label of the predicted class.", nullable=False),
        column("images", pa.int64(), "Images of the true class with this predicted class.", nullable=False),
        column("share", pa.float64(), "images / scored images of the true class.", nullable=False),
    ]
)
"""`confusion.parquet`: the confusion matrix without its zeros, diagonal included, by true_index, predicted_index."""


OUTCOMES: Final = pa.schema(
    [
        column("image", pa.string(), "Path below the scored root, as in the predictions.", nullable=False),
        column("status", pa.string(), "`ok` or `failed`.", nullable=False),
        column("error_code", pa.string(), "Error code of a failed image."),
        column("true_index", pa.int32(), "class_index of the true class.", nullable=False),
        column("true_label", pa.string(), "Label of the true class.", nullable=False),
        column("predicted_index", pa.int32(), "class_index of the first choice."),
        column("predicted_label", pa.string(), "Label of the first choice."),
        column("correct", pa.bool_(), "Whether the first choice is the true class. Null for failed images."),
        column("probability", pa.float32(), "Probability of the first choice."),
        column("margin", pa.float32(), "Highest probability minus second highest."),
        column("true_rank", pa.int32(), "Rank of the true class among the choices kept, from 1. Null beyond them."),
        column(
            "true_probability",
            pa.float32(),
            "Probability of the true class. Null where the predictions lack it.",
        ),
        column("width", pa.int32(), "Pixels of the upright picture."),
        column("height", pa.int32(), "Pixels of the upright picture."),
        column("file_size", pa.int64(), "Size of the file in bytes."),
        column("decision", pa.string(), "`accept` or `ask`, as in the predictions. Null without thresholds."),
        column("sha256", pa.string(), "sha256 of the file, as in the predictions. Null if they lack it."),
    ]
)
"""`outcomes.parquet`: one row per image with a label and a row in the predictions, in the predictions' order."""


MISTAKES: Final = pa.schema(
    [field for field in OUTCOMES if field.name not in ("status", "error_code", "correct")]
    + [
        column("suspicion", pa.float32(), "probability - true_probability (0 where that is null).", nullable=False),
        column(
            "suspected_label_error",
            pa.bool_(),
            "label_error_probability is at least 0.6, and not more images than wrong labels are estimated. Confident "
            "mistakes of the model that are spread over the classes are suspected, too.",
            nullable=False,
        ),
        column(
            "label_error_probability",
            pa.float32(),
            "Probability that the label is wrong, if the model of label noise is right (docs/analysts.md). 0 for "
            "all images without a clear sign of wrong labels, for two classes that are often confused, and for labels "
            "that corrections keep or replace.",
            nullable=False,
        ),
    ]
)
"""`mistakes.parquet`: the scored images with a wrong first choice, the most confident first (ties: by name)."""


CLASS_CHANGES: Final = pa.schema(
    [
        column("label", pa.string(), "The class's label.", nullable=False),
        column("support", pa.int64(), "Images of the class that both scored.", nullable=False),
        column("accuracy_a", pa.float64(), "A's accuracy on these images. Null without support."),
        column("accuracy_b", pa.float64(), "B's accuracy on these images."),
        column("difference", pa.float64(), "accuracy_b - accuracy_a."),
        column("difference_low", pa.float64(), "Lower end of its interval (Bonett and Price, paired)."),
        column("difference_high", pa.float64(), "Upper end of its interval."),
        column("only_a_right", pa.int64(), "Images that only A has right.", nullable=False),
        column("only_b_right", pa.int64(), "Images that only B has right.", nullable=False),
        column(
            "p_value", pa.float64(), "Exact McNemar test of only_a_right against only_b_right. Null without support."
        ),
        column("p_adjusted", pa.float64(), "p_value, adjusted by Holm for all classes with support."),
        column("f1_a", pa.float64(), "F1 of A. Null without support."),
        column("f1_b", pa.float64(), "F1 of B. Null without support."),
    ]
)
"""`per_class.parquet` and `per_class.csv` of a comparison: one row per class of at least one model, in A's order."""


FLIPS: Final = pa.schema(
    [
        column("image", pa.string(), "Path below the scored root.", nullable=False),
        column("true_label", pa.string(), "Label of the true class.", nullable=False),
        column("change", pa.string(), "`broken` (A right), `fixed` (B right) or `moved` (both wrong).", nullable=False),
        column("predicted_a", pa.string(), "A's first choice.", nullable=False),
        column("probability_a", pa.float32(), "Probability of A's first choice.", nullable=False),
        column("true_probability_a", pa.float32(), "A's probability of the true class. Null beyond the choices kept."),
        column("predicted_b", pa.string(), "B's first choice.", nullable=False),
        column("probability_b", pa.float32(), "Probability of B's first choice.", nullable=False),
        column("true_probability_b", pa.float32(), "B's probability of the true class. Null beyond the choices kept."),
        column("file_size", pa.int64(), "Size of the file in bytes when A read it."),
    ]
)
"""`flips.parquet`: the images that both scored and gave another first choice; broken, fixed, moved, each with the most
confident wrong answer first."""
