"""Files of a training run: the finished model, and until then the state to resume from.

Both hold tensors, numbers and strings only, so torch.load(weights_only=True) reads them; nothing else is unpickled.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from batchland.errors import UsageError
from batchland.models.card import ModelCard
from batchland.system.files import read_error, write_file
from batchland.training.dataset import TrainingData
from batchland.training.metrics import EpochReport
from batchland.training.models import ServedModel, build
from batchland.training.recipes import Recipe

_log = logging.getLogger("batchland")

CHECKPOINT: Final = "checkpoint.pt"
CHECKPOINT_FORMAT: Final = 1
_STATE: Final = "state.pt"
_IDENTITY: Final = "run.json"
_RESUME: Final = ".resume"


def save_checkpoint(
    path: Path,
    model: ServedModel,
    card: ModelCard,
    data: TrainingData,
    reports: Sequence[EpochReport],
    identity: dict[str, Any],
    recipe: Recipe,
) -> None:
    """Publish a finished model."""
    below = os.fsencode(data.folder)
    checkpoint = {
        "format": CHECKPOINT_FORMAT,
        "architecture": card.name,
        "backbone": identity.get("backbone"),  # None for the scratch model
        "head": recipe.head,
        "batch_norm": recipe.batch_norm,
        "card": card.to_json(),
        "state": {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        "data": os.fspath(data.folder),
        "validation": [os.fsdecode(os.path.relpath(example.ref.path, below)) for example in data.validation.examples],
        "epochs": [asdict(report) for report in reports],
        "identity": identity,
    }
    write_file(path, partial(torch.save, checkpoint))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote. Raises UsageError if `path` cannot be read or is something else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise read_error(error, str(path), expected="a run folder that `batchland train` wrote") from error
    except Exception as error:  # torch's unpickler raises IndexError and others on garbage
        raise UsageError(f"{path}: not a checkpoint of `batchland train`, or a damaged one; train again") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise UsageError(f"{path}: not a checkpoint that this version of batchland reads; train again")
    return checkpoint


def restore_model(checkpoint: dict[str, Any], card: ModelCard) -> ServedModel:
    """The trained model of a checkpoint, on the CPU, in eval mode."""
    model = build(
        checkpoint["architecture"],
        len(card.classes),
        card.preprocess,
        checkpoint["backbone"],
        checkpoint.get("head", "mlp"),  # this and the next are missing in checkpoints of earlier versions
        batch_norm=checkpoint.get("batch_norm", False),
    )
    model.load_state_dict(checkpoint["state"])
    return model.eval()


@dataclass(frozen=True)
class ResumeFolder:
    """A hidden folder with the state of an unfinished run; removed when the model is finished."""

    run: Path
    """The model's folder."""
    identity: dict[str, Any]
    """Everything that the result depends on (options, data, versions), as JSON returns it."""

    @property
    def path(self) -> Path:
        """The hidden folder in that of the model."""
        return self.run / _RESUME

    def open(self, resume: bool) -> tuple[dict[str, Any], list[EpochReport]] | None:
        """Return the saved state and the epochs before it, or None to start from the beginning.

        Without `resume`, discards what an interrupted run left. Raises UsageError if a run of other data or options
        left it.
        """
        if self.path.exists() and not resume:
            _log.warning("%s: discards the state of an interrupted run (`resume` would continue it)", self.run)
            shutil.rmtree(self.path)
        if (self.path / _IDENTITY).exists():
            require_same_identity(self.path, json.loads((self.path / _IDENTITY).read_text()), self.identity)
        write_file(self.path / _IDENTITY, json.dumps(self.identity))
        if not (self.path / _STATE).exists():
            return None
        state = torch.load(self.path / _STATE, map_location="cpu", weights_only=True)
        return state, [EpochReport(**report) for report in state.pop("reports")]

    def save(self, state: dict[str, Any], reports: Sequence[EpochReport]) -> None:
        """Replace the saved state."""
        whole = state | {"reports": [asdict(report) for report in reports]}
        write_file(self.path / _STATE, partial(torch.save, whole))

    def remove(self) -> None:
        """Delete the folder: the run is finished."""
        shutil.rmtree(self.path)


def require_same_identity(where: Path, earlier: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise UsageError that lists what differs between an earlier run and this one."""
    differences = [
        f"{key} was {earlier.get(key)}, is {current.get(key)}"
        for key in sorted(current | earlier)
        if earlier.get(key) != current.get(key)
    ]
    if differences:
        raise UsageError(
            f"{where}: to resume, data and options must be those of the earlier run, but {'; '.join(differences)}",
            advice="resume_same",
        )
