"""Weights of a backbone: random, downloaded, from a file or from an installed package; matched to its parameters."""

import importlib.metadata
import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from batchland.errors import UsageError
from batchland.training.backbones import Backbone, weights_url

_log = logging.getLogger("batchland")

_SUFFIXES: Final = (".pt", ".pth", ".safetensors")
_NESTED: Final = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts keep a state_dict."""
_COUNTER: Final = "num_batches_tracked"
"""A buffer of batch norm that eval mode does not use and some files lack."""
_ZIP: Final = b"PK\3\4"
"""First bytes of a file of torch.save."""
_RANDOM_RESIDUAL_GAIN: Final = 0.2
"""Random weights only: gain of a residual branch relative to its shortcut. See `_shrink_residuals`."""


def load_weights(network: nn.Module, backbone: Backbone, weights: str) -> None:
    """Give a backbone's network its weights.

    weights: `imagenet` (downloaded once), `none` (random), a file (.pt, .pth, .safetensors) or an installed package
    that contains one such file. Raises UsageError if they cannot be read or do not fit the network.
    """
    if weights == "none":
        _log.warning(
            "transfer: the backbone has random weights, so it distinguishes only colours and textures; "
            "use pretrained weights for real work"
        )
        _shrink_residuals(network)
    elif weights == "imagenet":
        network.load_state_dict(_download(network, backbone))
    else:
        path = find_weights(weights)
        state = _read_state(path, weights)
        matched = match_state(state, network, backbone, f"weights {weights}")
        if odd := next((name for name, tensor in matched.items() if not tensor.isfinite().all()), None):
            raise UsageError(f"weights {weights}: {odd} has values that are not finite (NaN or infinity); use others")
        if not any(tensor.any() for tensor in matched.values() if tensor.dim() > 1):
            raise UsageError(f"weights {weights}: all of them are zero; use others")
        network.load_state_dict(matched)


def find_weights(weights: str) -> Path:
    """The file that `weights` names: itself, or the only weights file of an installed package. Raises UsageError."""
    path = Path(weights)
    if path.exists() or path.suffix in _SUFFIXES or len(path.parts) > 1:
        return path
    try:
        files = importlib.metadata.files(weights) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"weights {weights}: neither a file nor an installed package; give imagenet, none, a file or a package"
        ) from error
    found = [file for file in files if file.suffix in _SUFFIXES]
    if len(found) != 1:
        names = ", ".join(map(str, found)) or "none"
        raise UsageError(f"weights {weights}: the package should contain one weights file, it contains: {names}")
    return Path(str(found[0].locate()))


def _shrink_residuals(network: nn.Module) -> None:
    """Reduce the gain of each residual branch, so that the shortcuts carry the image through fifty random layers.

    Measured with ResNet50 on 5 classes of real landmarks (169 to train, 99 to test, a linear classifier on standardised
    features, two seeds each, with calibrated batch norm): gain 0 or 0.2: 66 to 70 %, 0.5: 54 to 60 %, 1 (the usual):
    38 to 43 %. Without calibration, gain 1 and a fifth of the features dead: 57 to 68 %.
    """
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, _RANDOM_RESIDUAL_GAIN)
        elif isinstance(module, BasicBlock):
            nn.init.constant_(module.bn2.weight, _RANDOM_RESIDUAL_GAIN)


def _download(network: nn.Module, backbone: Backbone) -> Mapping[str, Tensor]:
    """The weights of ImageNet, downloaded unless they are in the cache of torch or timm."""
    try:
        if backbone.library == "timm":
            return backbone.build(pretrained=True)[0].state_dict()
        state = torch.hub.load_state_dict_from_url(
            weights_url(backbone.name), map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # no network, no disk space, wrong hash: torch and timm raise many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"the ImageNet weights of {backbone.name} cannot be downloaded ({reason})", advice="download_weights"
        ) from error
    return match_state(state, network, backbone, "weights imagenet")


def _read_state(path: Path, weights: str) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(
            f"weights {weights}: cannot be read ({error.strerror or error}); give imagenet, none, a file or a package"
        ) from error
    except Exception as error:  # torch's unpickler raises IndexError and others on garbage
        raise UsageError(f"weights {weights}: {_problem(path, str(error))}") from error
    while isinstance(state, dict) and (key := next((key for key in _NESTED if isinstance(state.get(key), dict)), None)):
        state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {weights}: contains no state_dict (names to tensors); save model.state_dict()")
    return state


def _problem(path: Path, error: str) -> str:
    """Why torch or safetensors cannot load a file."""
    if "Unsupported global" in error or "TorchScript" in error:
        return "contains Python objects, such as a whole model, and loading those may run code; save model.state_dict()"
    with path.open("rb") as file:
        if file.read(len(_ZIP)) == _ZIP:
            return "written by torch.save, but cut off or damaged; copy or download it again"
    return "neither written by torch.save nor safetensors; give a state_dict"


class _Parameter(NamedTuple):
    """One tensor of a state_dict."""

    name: str
    kind: str
    """Last part of the name: weight, bias, running_mean, ..."""
    layer: int
    """Number of its layer, counted in the order of the file."""
    tensor: Tensor

    def __str__(self) -> str:
        return f"{self.name} {list(self.tensor.shape)}"

    def fits(self, other: "_Parameter") -> bool:
        return (self.kind, self.layer, self.tensor.shape) == (other.kind, other.layer, other.tensor.shape)


def match_state(state: Mapping[str, Tensor], network: nn.Module, backbone: Backbone, source: str) -> dict[str, Tensor]:
    """Rename the tensors of a file to the names of the network. The file may also contain the last layer.

    Tensors are matched by name, or else by order if every one fits in its kind (weight, bias, ...), in its layer and in
    shape. Raises UsageError that names the first one that does not fit.
    """
    wanted = network.state_dict()
    plain = _without_prefix(state, wanted)
    own = {name for name in wanted if not name.endswith(_COUNTER)}
    others = [name for name in plain if name not in wanted and not name.startswith(f"{backbone.last_layer}.")]
    if own <= plain.keys() and not others:
        pairs = {name: plain[name] for name in own}
    else:
        pairs = _match_by_order(list(_parameters(plain)), list(_parameters(wanted)), backbone, source)
    for name, tensor in pairs.items():
        if tensor.shape != wanted[name].shape:
            raise UsageError(
                f"{source}: do not fit {backbone.name}: {name} has the shape {list(tensor.shape)}, not "
                f"{list(wanted[name].shape)}",
                advice="weights_backbone",
            )
    return wanted | pairs


def _match_by_order(
    given: list[_Parameter], wanted: list[_Parameter], backbone: Backbone, source: str
) -> dict[str, Tensor]:
    for one, other in itertools.zip_longest(given[: len(wanted)], wanted):
        if one is None or not one.fits(other):
            raise UsageError(
                f"{source}: do not fit {backbone.name}: expected {other}, found {one or 'nothing'}",
                advice="weights_backbone",
            )
    rest = given[len(wanted) :]
    if rest and rest[0].tensor.ndim == 2 and len({each.layer for each in rest[:2]}) == 1:  # the last layer
        rest = rest[2:]
    if rest:
        raise UsageError(
            f"{source}: do not fit {backbone.name}: {rest[0]} is not part of it", advice="weights_backbone"
        )
    return {other.name: one.tensor for one, other in zip(given, wanted, strict=False)}


def _parameters(state: Mapping[str, Tensor]) -> Iterator[_Parameter]:
    layer, before = -1, None
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if kind == _COUNTER:
            continue
        layer += module != before
        before = module
        yield _Parameter(name, kind, layer, tensor)


def _without_prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes such as `module.` that all names in the file have and no name in the network has."""
    names = list(state)
    known = {name.split(".")[0] for name in wanted}
    while len(first := {name.partition(".")[0] for name in names}) == 1 and not first & known and "" not in names:
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, state.values(), strict=True)) if "" not in names else dict(state)
