"""Two small networks as plain ONNX files: one with kinks and feature maps, one smooth."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(nodes: list[onnx.NodeProto], shape: list[int | str], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def convolutional(seed: int = 1) -> onnx.ModelProto:
    """x (n, 3, 12, 12) -> Conv, Relu, GlobalAveragePool, Gemm -> y (n, 5)."""
    draw = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "l"], ["d"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["s"], "relu2"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w"], ["y"], "dense"),
    ]
    weights = {
        "k": draw.normal(size=(6, 3, 3, 3)),
        "b": draw.normal(size=6),
        "l": draw.normal(size=(4, 6, 3, 3)),
        "w": draw.normal(size=(4, 5)),
    }
    return _model(nodes, ["n", 3, 12, 12], weights)


def smooth(seed: int = 2) -> onnx.ModelProto:
    """x (n, 7) -> Gemm, Tanh, Gemm -> y (n, 5)."""
    draw = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Gemm", ["x", "v"], ["h"], "hidden"),
        helper.make_node("Tanh", ["h"], ["t"], "tanh"),
        helper.make_node("Gemm", ["t", "w"], ["y"], "dense"),
    ]
    return _model(nodes, ["n", 7], {"v": draw.normal(size=(7, 9)), "w": draw.normal(size=(9, 5))})
