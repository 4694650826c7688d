"""A table of a model's layers: shapes and numbers of parameters."""

import torch
from torchinfo import summary

from batchland.images.preprocess import PreprocessSpec
from batchland.training.models import ServedModel


def layer_table(model: ServedModel, spec: PreprocessSpec) -> str:
    """One line a layer, for one image of the spec's size; totals below."""
    image = torch.zeros((1, *spec.shape), dtype=torch.uint8, device=model.mean.device)
    table = summary(
        model, input_data=[image], col_names=("input_size", "output_size", "num_params", "trainable"), depth=4,
        row_settings=("var_names",), mode="eval", verbose=0,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in str(table).splitlines()) + "\n"
