"""Decode one image in a subprocess with limited memory and time, so that only the subprocess can crash.

The subprocess is a new interpreter that reads the image from standard input and writes one line of JSON and the raw
pixels; nothing is pickled. Starting it takes a few tenths of a second, so only suspect images are decoded this way.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

import numpy as np

from batchland.errors import ImageError
from batchland.images.loader import Outcome, decode_image
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.sources.refs import ImageRef, read_image

_BASE_BYTES: Final = 2 * 1024**3
_BYTES_PER_PIXEL: Final = 32
"""Address space of the subprocess: for the interpreter, and twice what the worst picture of max_pixels needs."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchland.images.subprocess_decode import main; main()"
)


def load_in_subprocess(ref: ImageRef, spec: PreprocessSpec, timeout: float) -> tuple[Outcome, Pixels | None]:
    """See `load_image`. If the subprocess dies, the image is `crashed`.

    timeout: seconds after which the subprocess is killed and the image is `timeout`.
    """
    begin = time.perf_counter()
    try:
        file = read_image(ref)
    except ImageError as error:
        return Outcome(error=(error.code, str(error)), read_seconds=time.perf_counter() - begin), None
    read = time.perf_counter()
    outcome, pixels = _run_subprocess(ref.name, file.data, spec, timeout)
    outcome = outcome._replace(file_size=file.size, modified_us=file.modified_us, read_seconds=read - begin)
    return outcome._replace(decode_seconds=time.perf_counter() - read), pixels


def _run_subprocess(name: str, data: bytes, spec: PreprocessSpec, timeout: float) -> tuple[Outcome, Pixels | None]:
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), spec.model_dump_json()]
    try:
        run = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # its threads would reserve gigabytes of address space
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=("timeout", f"not decoded within {timeout:g} s")), None
    if run.returncode < 0:
        return Outcome(error=("crashed", f"its decoder was killed by {signal.Signals(-run.returncode).name}")), None
    if run.returncode > 0:
        raise RuntimeError(f"{name}: decoding it in a subprocess failed: {run.stderr.decode(errors='replace')}")
    facts, _, raw = run.stdout.partition(b"\n")
    outcome = Outcome(**json.loads(facts))
    if outcome.error is not None:
        return outcome._replace(error=(outcome.error[0], outcome.error[1])), None
    return outcome, np.frombuffer(raw, np.uint8).reshape(spec.shape)


def main() -> None:
    """Run inside the subprocess: read an image from standard input, write its outcome and pixels."""
    spec = PreprocessSpec.model_validate_json(sys.argv[2])
    _limit_memory(_BASE_BYTES + _BYTES_PER_PIXEL * spec.max_pixels)
    outcome, pixels = decode_image(sys.stdin.buffer.read(), spec)
    sys.stdout.buffer.write(json.dumps(outcome._asdict()).encode() + b"\n")
    if pixels is not None:
        sys.stdout.buffer.write(pixels.tobytes())


def _limit_memory(limit: int) -> None:
    import resource

    with suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
