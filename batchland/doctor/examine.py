"""Check an installation, a model or a job: what works, what does not work, and what to do.

for check in (*examine_installation(), *examine_model(Path("models/transfer.onnx"))):
    print(check.state, check.name, check.found, check.advice)

None of these functions raises: what is broken becomes a failed check.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from batchland.doctor.check import Check, guarded
from batchland.doctor.installation import check_installation
from batchland.doctor.machine import check_cores, check_disk, check_memory
from batchland.doctor.model import check_model
from batchland.errors import BatchlandError


def examine_installation() -> Iterator[Check]:
    """Check Python, packages, onnxruntime and its devices, cores and memory. Yields each result at once."""
    yield from check_installation()
    yield from guarded("cores", check_cores)
    yield from guarded("memory", check_memory)


def examine_model(model: Path | None = None, device: str = "auto", folder: Path = Path()) -> Iterator[Check]:
    """Check the disk of `folder`, and a model on a device. model: None means the model that scoring would use."""
    writable = partial(check_disk, needed=False)  # outputs may be elsewhere
    yield from guarded("disk", writable, "disk", folder.absolute())
    yield from guarded("model", check_model, "model", model, device)


def examine_job(path: Path, advise: Callable[[BatchlandError], str] = str) -> Iterator[Check]:
    """Check the job file and everything that its next run needs. Yields each result at once.

    advise: see `run_night`.
    """

    def checks() -> Iterator[Check]:
        from batchland.doctor.job import check_job  # a broken onnxruntime makes this import fail

        yield from check_job(path, advise)

    yield from guarded("job", checks)
