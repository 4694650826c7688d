"""The hyperparameters of each model: those of the published walk-through, and the defaults."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from batchland.training.augment import Augmentation
from batchland.training.options import Architecture, HeadKind, RecipeName

L2_STRENGTHS: Final = tuple(10.0 ** (exponent / 2) for exponent in range(6, -3, -1))
"""1000 to 0.1, strongest first, for features of standard deviation 1. The penalty is strength / 2 * |weights|^2 divided
by the number of features, added to the mean loss."""


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule and augmentation of one model."""

    epochs: int
    optimiser: Literal["sgd", "adamw", "lbfgs"]
    """lbfgs: logistic regression on the features; an epoch is one of L2_STRENGTHS."""
    learning_rate: float | None
    """Peak value; None for lbfgs."""
    weight_decay: float
    schedule: Literal["plateau", "cosine"]
    """plateau: divide by 10 after 10 epochs without a lower validation loss. cosine: warm-up, then down to 0."""
    label_smoothing: float
    standardise_features: bool
    """transfer: train the head on features of mean 0 and deviation 1 (folded into its first layer afterwards)."""
    augment: Augmentation
    head: HeadKind = "mlp"
    """transfer: logistic regression on the features, or a hidden layer of 512 units before it."""
    batch_norm: bool = False
    """scratch: batch norm after each convolution."""

    def settings(self) -> dict[str, Any]:
        """For the model card."""
        return asdict(self)


_WALKTHROUGH: Final = Augmentation(
    horizontal_flip=True, vertical_flip=True, brightness=0.3, contrast=0.2, saturation=0.3, hue=0.2
)
_MILD: Final = Augmentation(crop=0.75, horizontal_flip=True, brightness=0.2, contrast=0.2, saturation=0.2)

RECIPES: Final[dict[tuple[RecipeName, Architecture], Recipe]] = {
    ("walkthrough", "scratch"): Recipe(60, "sgd", 0.01, 0.0, "plateau", 0.0, False, _WALKTHROUGH),
    ("walkthrough", "transfer"): Recipe(50, "sgd", 0.01, 0.0, "plateau", 0.0, False, _WALKTHROUGH),
    ("default", "scratch"): Recipe(40, "adamw", 5e-4, 0.05, "cosine", 0.1, False, _MILD, batch_norm=True),
    ("default", "transfer"): Recipe(len(L2_STRENGTHS), "lbfgs", None, 0.05, "cosine", 0.0, True, _MILD, "linear"),
}
