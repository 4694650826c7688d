"""Versions of a trained model for other precisions: half floats, and one from which int8 is made."""

import copy

from torch import Tensor, nn

from batchland.training.models import ServedModel


class _HalfNetwork(nn.Module):
    """A copy of a network in half floats, with float32 input and output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.half()).float()


def half(model: ServedModel) -> ServedModel:
    """The model with its network in half floats; normalisation and softmax stay in float32."""
    twin = ServedModel(_HalfNetwork(model.network), model.mean.flatten().tolist(), model.std.flatten().tolist())
    twin.temperature.copy_(model.temperature)
    return twin.eval()


def quantisable(model: ServedModel) -> ServedModel:
    """A copy of the model that gives the same answers with ReLU before pooling.

    onnxruntime then fuses convolution and ReLU, and pools on int8. Training pools first, which is less work.
    """
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.Sequential):
            for index in range(len(module) - 1):
                if isinstance(module[index], nn.MaxPool2d) and isinstance(module[index + 1], nn.ReLU):
                    module[index], module[index + 1] = module[index + 1], module[index]
    return twin
