"""Open an ONNX classifier on a device, read its card, and turn pixels into probabilities."""

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from batchland.errors import DeviceError, ModelError
from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows
from batchland.images.preprocess import Pixels
from batchland.models.card import ModelCard
from batchland.models.contract import (
    INPUT_NAME,
    OUTPUT_NAME,
    Answer,
    Probabilities,
    check_answer,
    checked_card,
    further_outputs,
    read_model,
    require_features,
    require_self_contained,
)
from batchland.models.devices import DeviceRequest, GpuKind, device_name, gpu_problem, parse_device
from batchland.models.gpu.problems import Unusable, explain_known
from batchland.models.ort import CPU, CUDA, TENSORRT, create_session
from batchland.system.text import first_line

if TYPE_CHECKING:
    from batchland.models.gpu.pool import RunnerPool

__all__ = ["ModelContent", "OpenModel", "Session", "open_session"]


class ModelContent(NamedTuple):
    """The content of a model file that is not on this machine."""

    sha256: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class OpenModel:
    """Facts about an open model, in this process or another one."""

    path: Path
    card: ModelCard
    sha256: str
    device: str
    """The device in use: `cpu`, `cuda:0`, `cuda:0,1` or `tensorrt:0`."""
    provider: str
    """onnxruntime's execution provider in use."""
    fallback: str | None
    """Why device `auto` uses the CPU; None if it uses a GPU or the CPU was requested."""
    nodes: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    """On a GPU: number of the model's nodes by execution provider."""
    cpu_nodes: tuple[str, ...] = field(default=(), kw_only=True)
    """On a GPU: nodes that run on the CPU nevertheless, by operator and name."""
    settings: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """On a GPU: options of the CUDA provider. They affect the last digits of a probability."""
    decoder: str | None = field(default=None, kw_only=True)
    """What decodes JPEGs on the GPUs; None if the CPU does it."""
    features: bool = field(default=False, kw_only=True)
    """Whether it gives features beside probabilities."""

    @property
    def features_sha256(self) -> str:
        """Equal for models with the same features."""
        return self.card.features_of or self.sha256


@dataclass(frozen=True)
class Session(OpenModel):
    """A model that is open in this process."""

    _session: Any = field(kw_only=True)
    """onnxruntime's, or a Future of it; None with a pool."""
    _pool: "RunnerPool | None" = field(default=None, kw_only=True)
    """On GPUs, if a batch size was given."""
    decoder_is_strict: bool = field(default=False, kw_only=True)
    """Whether the decoder refuses damaged files. If not, the CPU must check files before."""

    @property
    def calls_at_once(self) -> int:
        """Number of parallel calls of `predict` that keep the device busy. `predict` is thread-safe."""
        return len(self._pool) if self._pool is not None else 1

    def predict(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Probabilities:
        """Class probabilities, float32 [batch, classes]. As `answer`."""
        return self.answer(pixels, jpegs).probabilities

    def answer(self, pixels: Pixels, jpegs: JpegRows = NO_JPEGS) -> Answer:
        """Probabilities, in `card.classes` order, features if it was opened for them, and the distance if it has any.

        pixels: uint8 [batch, H, W, 3]. jpegs: rows of `pixels` that are still encoded; needs a `decoder`.

        Raises ModelError if onnxruntime fails, or its answer is not one row per image or holds no probabilities;
        DeviceError if the device is at fault.
        """
        session = self._session.result() if isinstance(self._session, Future) else self._session
        try:
            if self._pool is not None:
                answer = self._pool.answer(pixels, jpegs)
            else:
                names = [OUTPUT_NAME, *further_outputs(self.card, features=self.features)]
                answer = Answer(**dict(zip(names, session.run(names, {INPUT_NAME: pixels}), strict=True)))
        except DeviceError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class but Exception
            raise self._failure(error) from error
        check_answer(self.path, self.card, len(pixels), answer.probabilities)
        return answer

    def close(self) -> None:
        """End the threads of a model that is open on GPUs."""
        if self._pool is not None:
            self._pool.close()

    def _failure(self, error: Exception) -> ModelError:
        known = explain_known(str(error)) if self.device != "cpu" else None
        kind = ModelError if known is None else DeviceError
        return kind(f"{self.path}: inference failed on {self.device}: {known or first_line(error)}")


def open_session(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    intra_op_threads: int | None = None,
    batch_size: int | None = None,
    content: ModelContent | None = None,
    gpu_settings: Mapping[str, str] | None = None,
    decode: Literal["cpu", "cuda"] = "cpu",
    keep_copy: bool = False,
    features: bool = False,
) -> Session:
    """Open an exported ONNX classifier.

    - device: `auto`, `cpu`, `cuda`, `cuda:N`, several as `cuda:0,1` or `cuda:all`, or the same with `tensorrt`.
    - intra_op_threads: onnxruntime's own threads on the CPU; None leaves it to onnxruntime.
    - batch_size: on GPUs, tune for batches of this size; takes some seconds the first time.
    - content: of the model, if it does not come from `path`, which is then only a name. Not read if a copy is kept.
    - gpu_settings: options of onnxruntime's CUDA provider that override the defaults.
    - decode: where JPEGs are decoded; `cuda` means on the model's GPUs and needs a batch_size.
    - keep_copy: on the CPU, keep an optimised copy of a large model in the user's cache, and open that next time.
    - features: also compute the features.

    Raises ModelError if the file is not such a model or has no features, DeviceError if the requested GPU cannot be
    used; `auto` falls back to the CPU and gives the reason in `fallback`.
    """
    path = Path(path)
    request = parse_device(device)
    if keep_copy and decode == "cpu":
        begun = None if content else _begun.pop((path, device, intra_op_threads, features), None)
        session = begun.result() if begun else _open_copy(path, content, device, intra_op_threads, features)
        if session is not None:
            return session
    data = content.read() if content else read_model(path)
    require_self_contained(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    fallback = None
    if request.kind != "cpu":
        session, fallback = _open_on_gpus(path, data, sha256, request, batch_size, gpu_settings or {}, decode, features)
        if session is not None:
            return session
        if request.kind != "auto":
            raise DeviceError(f"device {device} cannot be used here: {fallback}", advice="cpu_device")
    if decode == "cuda":
        reason = fallback or "JPEGs are decoded on the device of the model, and that is cpu"
        raise DeviceError(f"decoding JPEGs with cuda needs a GPU: {reason}", advice="decode_on_cpu")
    opened = _open_on_cpu(path, data, sha256, intra_op_threads, keep_copy=keep_copy)
    card = checked_card(path, opened)
    if features:
        require_features(path, card)
    return Session(path, card, sha256, "cpu", CPU, fallback, features=features, _session=opened)


_begun: Final[dict[tuple[Path, str, int | None, bool], "Future[Session | None]"]] = {}


def begin_opening(path: Path, device: str, *, intra_op_threads: int | None, features: bool) -> None:
    """Let a thread open the kept copy of a model, if there is one, for a later `open_session` with these arguments.

    Errors are raised by `open_session`.
    """
    _begun[path, device, intra_op_threads, features] = _opener().submit(
        _open_copy, path, None, device, intra_op_threads, features
    )


def _open_copy(
    path: Path, content: ModelContent | None, device: str, threads: int | None, features: bool
) -> Session | None:
    """A session of the kept copy of a model, which a thread opens; None without a copy, or if a GPU may be used."""
    request = parse_device(device)
    fallback = gpu_problem() if request.kind == "auto" else None
    if request.kind != "cpu" and not fallback:
        return None
    from batchland.models.optimised_copy import find_copy, find_copy_of, open_copy

    copy = find_copy_of(content.sha256) if content else find_copy(path)
    if copy is None:
        return None

    def open_it() -> Any:
        opened = open_copy(copy, threads) or _open_itself(path, content, copy.sha256, threads)
        if checked_card(path, opened) != card:
            raise ModelError(f"{path}: its kept copy has another card; delete the folder {copy.folder}")
        return opened

    card = ModelCard.from_json(copy.card, str(path))
    if features:
        require_features(path, card)
    return Session(path, card, copy.sha256, "cpu", CPU, fallback, features=features, _session=_opener().submit(open_it))


@cache
def _opener() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "open-model")


def _open_itself(path: Path, content: ModelContent | None, sha256: str, threads: int | None) -> Any:
    """A session of the model whose copy is damaged. Raises ModelError."""
    data = content.read() if content else read_model(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"{path}: was replaced while it was opened; run the same command again")
    return _open_on_cpu(path, data, sha256, threads, keep_copy=True)


def _open_on_cpu(path: Path, content: bytes, sha256: str, threads: int | None, *, keep_copy: bool) -> Any:
    try:
        if not keep_copy:
            return create_session(content, [(CPU, {})], threads)
        from batchland.models.optimised_copy import open_and_keep_copy

        return open_and_keep_copy(content, sha256, threads)
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ModelError(f"{path}: onnxruntime cannot load it: {first_line(error)}") from error


def _open_on_gpus(
    path: Path,
    content: bytes,
    sha256: str,
    request: DeviceRequest,
    batch_size: int | None,
    settings: Mapping[str, str],
    decode: Literal["cpu", "cuda"],
    features: bool,
) -> tuple[Session | None, str | None]:
    """A session that really runs on the GPUs, or the reason why there is none."""
    kind: GpuKind = "tensorrt" if request.kind == "tensorrt" else "cuda"
    if kind == "tensorrt":  # TensorRT has no session option to switch tf32 off
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if problem := gpu_problem(kind):
        return None, problem
    from batchland.models.gpu.open import open_on_gpus

    try:
        opened = open_on_gpus(path, content, sha256, kind, request.gpus, batch_size, settings, decode, features)
    except Unusable as reason:
        return None, str(reason)
    runners = opened.runners
    decoders = runners and runners.decoders
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
        decoder=decoders and decoders.name,
        decoder_is_strict=decoders is not None and decoders.strict,
        features=features,
        _session=opened.session,
        _pool=runners and runners.pool,
    ), None
