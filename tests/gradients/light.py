"""The nine ``light_*`` networks inside the onnx package (opset 9), their weights drawn anew.

As shipped every weight tensor is one constant, so that their gradients are zero. The three with fully connected layers
4096 wide get them 128 wide: nothing else about the graph changes, and half a gigabyte of random numbers is saved.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from tests.reference import Reference

FOLDER = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx"))


def redrawn(name: str) -> ModelProto:
    """The network of that name with random weights as initializers, scaled so that no probability is saturated."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    rng = np.random.default_rng(0)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    readers = {name: (node, index) for node in model.graph.node for index, name in enumerate(node.input)}
    nodes, drawn = [], {}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            weight = node.output[0]
            reader, index = readers[weight]
            if reader.op_type == "Unsqueeze":
                reader, index = readers[reader.output[0]]
            shape = tuple(128 if size == 4096 else int(size) for size in shapes[node.input[0]])
            drawn[weight] = draw(reader, index, shape, rng)
        else:
            nodes.append(node)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w.astype(np.float32), n) for n, w in drawn.items())
    rescale_logits(model)
    return model


def draw(reader: NodeProto, index: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """A weight for that input of that node: He et al. 2015 for kernels, near 1 for scales and variances, else small."""
    if reader.op_type in ("Conv", "Gemm") and index == 1:
        return rng.normal(0.0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if reader.op_type == "Mul" or (reader.op_type == "BatchNormalization" and index in (1, 4)):
        return rng.uniform(0.5, 1.5, shape)
    return 0.1 * rng.standard_normal(shape)


def picture(model: ModelProto) -> dict[str, NDArray[np.float64]]:
    """A normal input by name."""
    weights = {t.name for t in model.graph.initializer}
    (info,) = (i for i in model.graph.input if i.name not in weights)
    shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
    return {info.name: np.random.default_rng(1).standard_normal(shape)}


def rescale_logits(model: ModelProto) -> None:
    """Scale the last layer so that the logits have standard deviation 1."""
    last = max(i for i, node in enumerate(model.graph.node) if node.op_type in ("Conv", "Gemm"))
    layer, output = model.graph.node[last], model.graph.output[0].name
    probe = ModelProto()
    probe.CopyFrom(model)
    logits = probe.graph.node[-1].input[0] if probe.graph.node[-1].op_type == "Softmax" else output
    probe.graph.output[0].name = logits
    size = float(np.std(Reference(probe)(picture(model))[logits]))
    for tensor in model.graph.initializer:
        if tensor.name in layer.input[1:]:
            scaled = onnx.numpy_helper.to_array(tensor) / np.float32(size)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scaled, tensor.name))
