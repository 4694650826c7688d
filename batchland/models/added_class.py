"""Add a class to a model without training: its probability grows with the similarity of the features to a prototype."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from batchland.models.contract import FEATURES_NAME, OUTPUT_NAME, Features, Probabilities
from batchland.models.nodes import constant

_PREFIX: Final = "added/"
"""Prefix of the names of added nodes, followed by the number of the class."""


class Prototype(NamedTuple):
    """The new class has the probability 1 / (1 + exp(-sharpness (similarity - threshold)))."""

    vector: npt.NDArray[np.float32]
    """[features], of length 1; its inner product with an image's features is the similarity."""
    threshold: float
    """Similarity of the probability 1/2."""
    sharpness: float

    def probabilities(self, features: Features) -> npt.NDArray[np.float32]:
        """Probabilities of the new class, [images]."""
        similarity = features @ self.vector
        return 1 / (1 + np.exp(-self.sharpness * (similarity - self.threshold)))


def with_added(probabilities: Probabilities, added: npt.NDArray[np.float32]) -> Probabilities:
    """Probabilities of all classes, the new one last; the old ones share the rest in their old proportions."""
    return np.concatenate([probabilities * (1 - added[:, None]), added[:, None]], axis=1)


def add_class(model: onnx.ModelProto, prototype: Prototype, number: int) -> None:
    """Add the class to the graph of a model with the output `features`. number: of the classes before."""
    name = f"{_PREFIX}{number}/"
    before = f"{name}before"
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [before if each == OUTPUT_NAME else each for each in names]
    model.graph.node.extend(
        [
            constant(f"{name}vector", prototype.vector[:, None]),
            constant(f"{name}threshold", np.array([prototype.threshold], np.float32)),
            constant(f"{name}sharpness", np.array([prototype.sharpness], np.float32)),
            constant(f"{name}one", np.ones(1, np.float32)),
            helper.make_node("MatMul", [FEATURES_NAME, f"{name}vector"], [f"{name}similarity"]),
            helper.make_node("Sub", [f"{name}similarity", f"{name}threshold"], [f"{name}above"]),
            helper.make_node("Mul", [f"{name}above", f"{name}sharpness"], [f"{name}logit"]),
            helper.make_node("Sigmoid", [f"{name}logit"], [f"{name}probability"]),
            helper.make_node("Sub", [f"{name}one", f"{name}probability"], [f"{name}rest"]),
            helper.make_node("Mul", [before, f"{name}rest"], [f"{name}old"]),
            helper.make_node("Concat", [f"{name}old", f"{name}probability"], [OUTPUT_NAME], axis=1),
        ]
    )
    for output in model.graph.output:
        if output.name == OUTPUT_NAME:
            output.type.tensor_type.shape.dim[1].Clear()
            output.type.tensor_type.shape.dim[1].dim_value = number + 1
    del model.graph.value_info[:]  # one may name the output with its former shape
