"""Decode one image in a process of its own, with bounded memory and time, so that only that process can die of it.

The process is a fresh interpreter that gets the image on standard input and gives back one line of JSON and the raw
pixels; nothing is pickled. It costs a few tenths of a second, so only suspects are loaded this way.
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
"""Address space of the process: the interpreter's, and twice what the worst picture of max_pixels takes."""
_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from batchland.images.subprocess_decode import main; main()"
)


def load_apart(ref: ImageRef, spec: PreprocessSpec, timeout: float) -> tuple[Outcome, Pixels | None]:
    """As `load_image`, whatever the image does to its decoder: a process that dies makes it `crashed`.

    timeout: seconds, after which the process is killed and the image is `timeout`.
    """
    begin = time.perf_counter()
    try:
        file = read_image(ref)
    except ImageError as error:
        return Outcome(error=(error.code, str(error)), read_seconds=time.perf_counter() - begin), None
    read = time.perf_counter()
    outcome, pixels = _decode_apart(ref.name, file.data, spec, timeout)
    outcome = outcome._replace(file_size=file.size, modified_us=file.modified_us, read_seconds=read - begin)
    return outcome._replace(decode_seconds=time.perf_counter() - read), pixels


def _decode_apart(name: str, data: bytes, spec: PreprocessSpec, timeout: float) -> tuple[Outcome, Pixels | None]:
    command = [sys.executable, "-P", "-c", _CHILD, json.dumps(sys.path), spec.model_dump_json()]
    try:
        run = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            input=data,
            capture_output=True,
            timeout=timeout,
            check=False,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # whose threads would reserve gigabytes of address space
        )
    except subprocess.TimeoutExpired:
        return Outcome(error=("timeout", f"not decoded within {timeout:g} s")), None
    if run.returncode < 0:
        return Outcome(error=("crashed", f"its decoder was killed by {signal.Signals(-run.returncode).name}")), None
    if run.returncode > 0:
        raise RuntimeError(f"{name}: decoding it apart failed: {run.stderr.decode(errors='replace')}")
    facts, _, raw = run.stdout.partition(b"\n")
    outcome = Outcome(**json.loads(facts))
    if outcome.error is not None:
        return outcome._replace(error=(outcome.error[0], outcome.error[1])), None
    return outcome, np.frombuffer(raw, np.uint8).reshape(spec.shape)


def main() -> None:
    """The process of `load_apart`: gets the image's content on standard input."""
    spec = PreprocessSpec.model_validate_json(sys.argv[2])
    _bound_memory(_BASE_BYTES + _BYTES_PER_PIXEL * spec.max_pixels)
    outcome, pixels = decode_image(sys.stdin.buffer.read(), spec)
    sys.stdout.buffer.write(json.dumps(outcome._asdict()).encode() + b"\n")
    if pixels is not None:
        sys.stdout.buffer.write(pixels.tobytes())


def _bound_memory(limit: int) -> None:
    import resource

    with suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
