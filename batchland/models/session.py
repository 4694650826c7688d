"""Open an ONNX classifier on a device, read its card, turn pixels into probabilities.

Besides the quantiser of training the only package that imports onnxruntime. Knows nothing of files of images or of
Parquet. ort.py is the door to onnxruntime and contract.py what a model must be; devices.py and problems.py find out
and say what keeps a GPU from working; gpu.py opens a model there, with bound.py, pool.py and tuning.py.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchland.errors import DeviceError, ModelError
from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.card import ModelCard
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME, Probabilities, check_answer, checked_card, read_model
from batchland.models.devices import GpuKind, Wanted, device_name, gpu_problem, parse_device
from batchland.models.gpu.problems import Unusable, explain_known
from batchland.models.ort import CPU, CUDA, TENSORRT, Threads, create_session, first_line

if TYPE_CHECKING:
    from batchland.models.gpu.pool import RunnerPool

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "OpenModel", "Probabilities", "Session", "open_session", "read_model"]


@dataclass(frozen=True)
class OpenModel:
    """What there is to know of an open model, wherever it is open.

    `device` is where it really runs: `cpu`, `cuda:0`, `cuda:0,1` or `tensorrt:0`, `provider` the execution provider.
    """

    path: Path
    card: ModelCard
    sha256: str
    device: str
    provider: str
    fallback: str | None
    """With device `auto`: why it is not CUDA. None where nothing was given up."""
    nodes: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    """On a GPU: how many of the model's nodes each execution provider has."""
    cpu_nodes: tuple[str, ...] = field(default=(), kw_only=True)
    """On a GPU: the nodes that were left to the CPU all the same, by operator and name."""
    settings: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """On a GPU: how its execution provider was set. They decide the last digits of a probability."""
    decoder: str | None = field(default=None, kw_only=True)
    """What decodes JPEGs on the GPUs, where the CPU does not do it."""


@dataclass(frozen=True)
class Session(OpenModel):
    """A model that is open in this process."""

    _session: Any = field(kw_only=True)
    """onnxruntime's; None with a pool."""
    _pool: "RunnerPool | None" = field(default=None, kw_only=True)
    """On GPUs, for batches of a size that was given."""
    decoder_is_strict: bool = field(default=False, kw_only=True)
    """Whether it refuses damaged files; else they have to be found before."""

    @property
    def calls_at_once(self) -> int:
        """How many threads should call `predict` at a time, to keep the device busy. All may, anyway."""
        return len(self._pool) if self._pool is not None else 1

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """Class probabilities, float32 [batch, classes], in `card.classes` order, of uint8 pixels [batch, H, W, 3].

        jpegs: rows whose pixels are not there yet, only with a `decoder`.

        Raises ModelError if onnxruntime fails on this batch, or gives other than a row per image; DeviceError if that
        is the device's fault.
        """
        try:
            if self._pool is not None:
                return self._pool.predict(pixels, jpegs)
            (probabilities,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: pixels})
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise self._failed(error) from error
        check_answer(self.path, self.card, len(pixels), probabilities)
        return probabilities  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the threads of a model that is open on GPUs."""
        if self._pool is not None:
            self._pool.close()

    def _failed(self, error: Exception) -> ModelError:
        known = explain_known(str(error)) if self.device != "cpu" else None
        kind = ModelError if known is None else DeviceError
        return kind(f"{self.path}: inference failed on {self.device}: {known or first_line(error)}")


def open_session(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    intra_op_threads: int | None = None,
    spinning: bool = False,
    batch_size: int | None = None,
    content: bytes | None = None,
    gpu_settings: Mapping[str, str] | None = None,
    decode: Literal["cpu", "cuda"] = "cpu",
) -> Session:
    """Open an exported ONNX classifier.

    device: `auto`, `cpu`, `cuda`, `cuda:N`, several as `cuda:0,1` or `cuda:all`, or the same with `tensorrt`.
    intra_op_threads: onnxruntime's own threads on the CPU (default: its choice). spinning: let them busy-wait, faster
    when nothing else wants the cores. batch_size: on GPUs, be as fast as possible with batches of this size; choosing
    how takes some seconds the first time. content: the file's, where it has been read already; the path is only its
    name then. gpu_settings: options of onnxruntime's CUDA provider, in place of its or our defaults. decode: who
    decodes JPEGs; `cuda`, the GPUs that the model runs on, goes with a batch_size.

    Raises ModelError if the file is not such a model, DeviceError if a GPU was asked for and cannot be had; `auto`
    falls back to the CPU and says why in `fallback`.
    """
    path = Path(path)
    wanted = parse_device(device)
    content = read_model(path) if content is None else content
    sha256 = hashlib.sha256(content).hexdigest()
    fallback = None
    if wanted.kind != "cpu":
        session, fallback = _open_on_gpus(path, content, sha256, wanted, batch_size, gpu_settings or {}, decode)
        if session is not None:
            return session
        if wanted.kind != "auto":
            raise DeviceError(f"--device {device} cannot run here: {fallback}; or use --device cpu")
    if decode == "cuda":
        reason = fallback or "JPEGs are decoded where the model runs, and --device cpu is none"
        raise DeviceError(f"--decode cuda needs a GPU: {reason}; or use --decode cpu")
    try:
        opened = create_session(content, [(CPU, {})], Threads(intra_op_threads, spinning))
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ModelError(f"{path}: onnxruntime cannot load it: {first_line(error)}") from error
    return Session(path, checked_card(path, opened), sha256, "cpu", CPU, fallback, _session=opened)


def _open_on_gpus(
    path: Path,
    content: bytes,
    sha256: str,
    wanted: Wanted,
    batch_size: int | None,
    settings: Mapping[str, str],
    decode: Literal["cpu", "cuda"],
) -> tuple[Session | None, str | None]:
    """A session that really runs on the GPUs, or the reason why there is none."""
    kind: GpuKind = "tensorrt" if wanted.kind == "tensorrt" else "cuda"
    if kind == "tensorrt":  # it has no option of its own to compute float32 as float32
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if problem := gpu_problem(kind):
        return None, problem
    from batchland.models.gpu.open import open_on_gpus

    try:
        opened = open_on_gpus(path, content, sha256, kind, wanted.gpus, batch_size, settings, decode)
    except Unusable as reason:
        return None, str(reason)
    return Session(
        path,
        opened.card,
        sha256,
        device_name(kind, opened.gpus),
        TENSORRT if kind == "tensorrt" else CUDA,
        None,
        nodes=opened.placement.nodes,
        cpu_nodes=opened.placement.on_cpu,
        settings=opened.settings,
        decoder=opened.decoders and opened.decoders.name,
        decoder_is_strict=opened.decoders is not None and opened.decoders.strict,
        _session=opened.session,
        _pool=opened.pool,
    ), None
