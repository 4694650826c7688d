"""What training leaves on disk: the finished model, and until then the state to resume from.

Both hold tensors, numbers and strings only: torch.load(weights_only=True) reads them, nothing else is ever unpickled.
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
from batchland.system.files import write_file
from batchland.training.dataset import TrainingData
from batchland.training.journal import EpochReport
from batchland.training.models import ServedModel, build

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
) -> None:
    """Publish a finished model."""
    below = os.fsencode(data.folder)
    checkpoint = {
        "format": CHECKPOINT_FORMAT,
        "architecture": card.name,
        "backbone": identity.get("backbone"),  # None: the scratch model has none
        "card": card.to_json(),
        "state": {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()},
        "data": os.fspath(data.folder),
        "validation": [os.fsdecode(os.path.relpath(example.ref.path, below)) for example in data.validation.examples],
        "epochs": [asdict(report) for report in reports],
        "identity": identity,
    }
    write_file(path, partial(torch.save, checkpoint))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote. Raises UsageError if it cannot be read or is something else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); give a run folder that `batchland train` wrote"
        ) from error
    except Exception as error:  # torch's unpickler lets IndexError and others through on garbage
        raise UsageError(f"{path}: not a checkpoint of `batchland train`, or a damaged one; train again") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise UsageError(f"{path}: not a checkpoint that this version of batchland reads; train again")
    return checkpoint


def restore_model(checkpoint: dict[str, Any], card: ModelCard) -> ServedModel:
    """The trained model of a checkpoint, on the CPU, in eval mode."""
    model = build(checkpoint["architecture"], len(card.classes), card.preprocess, checkpoint["backbone"])
    model.load_state_dict(checkpoint["state"])
    return model.eval()


@dataclass(frozen=True)
class ResumeFolder:
    """Where an unfinished run keeps its state; gone when the model is done. Belongs to one identity."""

    run: Path
    """The model's folder."""
    identity: dict[str, Any]
    """What the result follows from, as JSON would give it back: options, data, versions."""

    @property
    def path(self) -> Path:
        """A hidden folder in that of the model."""
        return self.run / _RESUME

    def open(self, resume: bool) -> tuple[dict[str, Any], list[EpochReport]] | None:
        """The state to go on from, if there is one, and the epochs until then.

        Without `resume`, or where nothing has been left, begins anew. Raises UsageError if what is there was left by
        another run.
        """
        if self.path.exists() and not resume:
            _log.warning("%s: discards what an interrupted run has left (--resume would go on with it)", self.run)
            shutil.rmtree(self.path)
        if (self.path / _IDENTITY).exists():
            require_same(self.path, json.loads((self.path / _IDENTITY).read_text()), self.identity)
        write_file(self.path / _IDENTITY, json.dumps(self.identity))
        if not (self.path / _STATE).exists():
            return None
        state = torch.load(self.path / _STATE, map_location="cpu", weights_only=True)
        return state, [EpochReport(**report) for report in state.pop("reports")]

    def save(self, state: dict[str, Any], reports: Sequence[EpochReport]) -> None:
        """Replace the state."""
        whole = state | {"reports": [asdict(report) for report in reports]}
        write_file(self.path / _STATE, partial(torch.save, whole))

    def remove(self) -> None:
        """The run is done."""
        shutil.rmtree(self.path)


def require_same(where: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raises UsageError that names what differs between an earlier run and this one."""
    differences = [
        f"{key} {theirs.get(key)} there and {ours.get(key)} here"
        for key in sorted(ours | theirs)
        if theirs.get(key) != ours.get(key)
    ]
    if differences:
        raise UsageError(
            f"{where}: --resume needs the data and options of the earlier run, and these differ: "
            f"{'; '.join(differences)}; give the same, or train anew without --resume"
        )
