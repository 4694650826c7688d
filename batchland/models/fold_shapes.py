"""Compute in advance what a model computes from shapes: paddings, for example.

torch's older exporter leaves this to the graph if the batch size is dynamic. onnxruntime fuses paddings into
convolutions, and quantises across them, only if they are constants.
"""

import numpy as np
import onnx

from batchland.models.contract import INPUT_NAME
from batchland.models.nodes import constant, input_names
from batchland.models.ort import CPU, create_session


def fold_shapes(model: onnx.ModelProto, shape: tuple[int, int, int]) -> None:
    """Replace integers that depend only on shapes by constants, if they are the same for batches of 1 and 3.

    model: checked, and takes pictures uint8 [batch, *shape]. One that cannot be computed stays as it is.
    """
    nodes = {name: node for node in model.graph.node for name in node.output}
    names = _from_shapes(model.graph)
    if not names:
        return
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = create_session(probe.SerializeToString(), [(CPU, {})])
        one, three = (session.run(names, {INPUT_NAME: np.zeros((batch, *shape), np.uint8)}) for batch in (1, 3))
    except Exception:  # onnxruntime's errors share no base class; adoption reports what cannot be computed
        return
    for name, values, others in zip(names, one, three, strict=True):
        if values.dtype.kind == "i" and values.ndim <= 1 and np.array_equal(values, others):
            nodes[name].CopyFrom(constant(name, values))
    _drop_unread(model.graph)


def _from_shapes(graph: onnx.GraphProto) -> list[str]:
    """Tensors that depend only on shapes, and are read by nodes that do not."""
    stored = {tensor.name for tensor in graph.initializer}
    counted: set[str] = set()
    for node in graph.node:
        if node.op_type == "Constant":
            stored.update(node.output)
        elif node.op_type == "Shape" or (counted & {*node.input} and counted | stored >= {*input_names(node)}):
            counted.update(node.output)
    others = [node for node in graph.node if not counted.issuperset(node.output)]
    read = dict.fromkeys(name for node in others for name in input_names(node))
    makers = {node.output[0] for node in graph.node if len(node.output) == 1}
    return [name for name in read if name in counted & makers]


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output depends on."""
    kept, read = [], {value.name for value in graph.output}
    for node in reversed(graph.node):
        if read.intersection(node.output):
            kept.append(node)
            read.update(input_names(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
