"""Open an ONNX classifier on a device, read its card, turn pixels into probabilities.

The only module that imports onnxruntime. Knows nothing of files of images or of Parquet.
"""

import ctypes
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

# onnxruntime 1.31 collects telemetry, in a database in the user's cache, from its import on. Nobody asked for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from batchland.errors import DeviceError, ModelError
from batchland.model_card import METADATA_KEY, ModelCard
from batchland.preprocess import Pixels

Probabilities = npt.NDArray[np.float32]

INPUT_NAME: Final = "images"
OUTPUT_NAME: Final = "probabilities"
_CUDA: Final = "CUDAExecutionProvider"
_CPU: Final = "CPUExecutionProvider"


@dataclass(frozen=True)
class OpenModel:
    """What there is to know of an open model, wherever it is open.

    `device` is where it really runs: `cpu` or `cuda:N`, `provider` the execution provider's name.
    """

    path: Path
    card: ModelCard
    sha256: str
    device: str
    provider: str
    fallback: str | None
    """With device `auto`: why it is not CUDA. None where nothing was given up."""


@dataclass(frozen=True)
class Session(OpenModel):
    """A model that is open in this process."""

    _session: ort.InferenceSession

    def predict(self, pixels: Pixels) -> Probabilities:
        """Class probabilities, float32 [batch, classes], in `card.classes` order, of uint8 pixels [batch, H, W, 3].

        Raises ModelError if onnxruntime fails on this batch, or gives other than a row per image.
        """
        try:
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise ModelError(f"{self.path}: inference failed on {self.device}: {_first_line(error)}") from error
        if probabilities.shape != (len(pixels), len(self.card.classes)):
            raise ModelError(
                f"{self.path}: gave probabilities of shape {list(probabilities.shape)} for {len(pixels)} images and "
                f"{len(self.card.classes)} classes; export the model again"
            )
        return probabilities  # type: ignore[no-any-return]


def open_session(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    intra_op_threads: int | None = None,
    spinning: bool = False,
    content: bytes | None = None,
) -> Session:
    """Open an exported ONNX classifier.

    device: `auto`, `cpu`, `cuda` or `cuda:N`. intra_op_threads: onnxruntime's own threads (default: its choice).
    spinning: let them busy-wait, faster when nothing else wants the cores. content: the file's, where it has been read
    already; the path is only its name then.

    Raises ModelError if the file is not such a model, DeviceError if `cuda` was asked for and cannot be had; `auto`
    falls back to the CPU and says why in `fallback`.
    """
    path = Path(path)
    content = read_model(path) if content is None else content
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the reasons of failures are ours to tell
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    if intra_op_threads is not None:
        options.intra_op_num_threads = intra_op_threads
    kind, _, number = device.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise DeviceError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    fallback = None
    if kind != "cpu":
        session, fallback = _open_on_cuda(path, content, options, int(number or 0))
        if session is not None:
            return _checked(path, content, session, f"cuda:{number or 0}", _CUDA, None)
        if kind == "cuda":
            raise DeviceError(f"--device {device} cannot run here: {fallback}; or use --device cpu")
    session = _create(path, content, options, [_CPU])
    return _checked(path, content, session, "cpu", _CPU, fallback)


def _open_on_cuda(
    path: Path, content: bytes, options: ort.SessionOptions, number: int
) -> tuple[ort.InferenceSession | None, str | None]:
    """A session that really has the CUDA provider, or the reason why there is none."""
    problem = _cuda_problem()
    if problem:
        return None, problem
    session = _create(path, content, options, [(_CUDA, {"device_id": number}), _CPU])
    if _CUDA in session.get_providers():
        return session, None
    problem = _library_problem()
    if problem:
        return None, f"{problem}; install the NVIDIA libraries with `pip install 'batchland[cuda]'`"
    return None, f"onnxruntime could not start CUDA on GPU {number}; see nvidia-smi for its state"


def _cuda_problem() -> str | None:
    """Why CUDA cannot work here, found without creating a session. None if nothing speaks against it."""
    if _CUDA not in ort.get_available_providers():
        return "the installed onnxruntime has no CUDA provider; install onnxruntime-gpu in its place"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine (libcuda.so.1 is missing); run it where there is a GPU"
    if (status := driver.cuInit(0)) != 0:
        return f"the NVIDIA driver does not start (cuInit gives {status}; 100 means no GPU); see nvidia-smi"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return None


def _library_problem() -> str | None:
    """The loader's own words on the CUDA provider's library: they name what is missing."""
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        text = str(error)
        return None if "Provider_GetHost" in text else text  # that symbol is onnxruntime's own, never on its own
    return None


def _create(path: Path, content: bytes, options: ort.SessionOptions, providers: list[object]) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ModelError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error


def read_model(path: Path) -> bytes:
    """The file's content. Raises ModelError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give an exported model with --model") from error
    if not content:
        raise ModelError(f"{path}: is empty; export the model again")
    return content


def _checked(
    path: Path, content: bytes, session: ort.InferenceSession, device: str, provider: str, fallback: str | None
) -> Session:
    """Hold the graph against the contract and against its card."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"{path}: has no batchland card (class names and preprocessing); add one with `batchland adopt {path.name} "
            f"--classes labels.txt --preprocess imagenet --out adopted.onnx`"
        )
    card = ModelCard.from_json(text, str(path))
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    wanted = ("tensor(uint8)", list(card.preprocess.shape))
    kind, shape = inputs.get(INPUT_NAME, ("no such input", []))
    if len(inputs) != 1 or (kind, shape[1:]) != wanted or isinstance(shape[0], int):
        raise ModelError(
            f"{path}: its input is {inputs}, but its card asks for {INPUT_NAME} uint8 [batch, "
            f"{', '.join(map(str, wanted[1]))}]; export the model again"
        )
    outputs = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    kind, shape = outputs.get(OUTPUT_NAME, ("no such output", []))
    if kind != "tensor(float)" or len(shape) != 2 or shape[1] != len(card.classes):
        raise ModelError(
            f"{path}: its output is {outputs}, but its card names {len(card.classes)} classes; export the model again"
        )
    return Session(path, card, hashlib.sha256(content).hexdigest(), device, provider, fallback, session)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
