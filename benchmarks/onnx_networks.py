"""ResNet-50 and ViT-B/16 as ONNX without PyTorch, so that the GPU's acceptance needs nothing but the ``gpu`` extra.

Weights are random and scaled so that activations keep their size; there is no batch normalisation, whose inference form
is folded into the convolutions of every exported ResNet anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


class Graph:
    """Nodes and weights of a network in the making."""

    def __init__(self, seed: int = 0) -> None:
        self.draw = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One more node; the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: NDArray[np.generic] | Sequence[int]) -> str:
        """A weight; a sequence of integers becomes int64."""
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def random(self, *shape: int, fan_in: int, gain: float = 1.0) -> str:
        """A normal float32 weight of variance gain**2 / fan_in."""
        return self.constant((self.draw.normal(size=shape) * gain * fan_in**-0.5).astype(np.float32))

    def linear(self, x: str, inner: int, outer: int, gain: float = 1.0) -> str:
        """x @ W + b on the last axis."""
        bias = self.constant(np.zeros(outer, np.float32))
        return self("Add", self("MatMul", x, self.random(inner, outer, fan_in=inner, gain=gain)), bias)

    def model(self, output: str, size: int) -> onnx.ModelProto:
        """(n, 3, size, size) -> (n, 1000) logits."""
        self.nodes.append(helper.make_node("Identity", [output], ["logits"], "logits"))
        picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1000])
        graph = helper.make_graph(self.nodes, "network", [picture], [logits], self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(made)
        return made


def resnet(depths: Sequence[int] = (3, 4, 6, 3), width: int = 64, size: int = 224) -> onnx.ModelProto:
    """ResNet with bottleneck blocks; the default is ResNet-50 (He et al. 2015, arXiv:1512.03385, table 1)."""
    op = Graph()

    def convolution(x: str, inner: int, outer: int, kernel: int, stride: int = 1, gain: float = 2**0.5) -> str:
        weight = op.random(outer, inner, kernel, kernel, fan_in=inner * kernel**2, gain=gain)
        bias = op.constant(np.zeros(outer, np.float32))
        return op("Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4)

    x = op("Relu", convolution("input", 3, width, 7, 2))
    x = op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inner = width
    for stage, depth in enumerate(depths):
        narrow = width * 2**stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            y = op("Relu", convolution(x, inner, narrow, 1))
            y = op("Relu", convolution(y, narrow, narrow, 3, stride))
            y = convolution(y, narrow, 4 * narrow, 1, gain=0.5)
            shortcut = convolution(x, inner, 4 * narrow, 1, stride, gain=1.0) if not block else x
            x, inner = op("Relu", op("Add", y, shortcut)), 4 * narrow
    pooled = op("Flatten", op("GlobalAveragePool", x))
    return op.model(op.linear(pooled, inner, 1000), size)


def vit(layers: int = 12, width: int = 768, heads: int = 12, size: int = 224, patch: int = 16) -> onnx.ModelProto:
    """ViT; the default is ViT-B/16 (Dosovitskiy et al. 2020, arXiv:2010.11929), the mean of the tokens classified."""
    op = Graph()
    tokens, depth = (size // patch) ** 2, width // heads

    def normalised(x: str) -> str:
        one, zero = op.constant(np.ones(width, np.float32)), op.constant(np.zeros(width, np.float32))
        return op("LayerNormalization", x, one, zero, axis=-1)

    def by_head(x: str, order: list[int]) -> str:
        shaped = op("Reshape", x, op.constant([0, tokens, heads, depth]))
        return op("Transpose", shaped, perm=order)

    weight = op.random(width, 3, patch, patch, fan_in=3 * patch**2)
    x = op("Conv", "input", weight, kernel_shape=[patch] * 2, strides=[patch] * 2)
    x = op("Transpose", op("Reshape", x, op.constant([0, width, tokens])), perm=[0, 2, 1])
    x = op("Add", x, op.random(1, tokens, width, fan_in=1, gain=0.1))
    for _ in range(layers):
        y = normalised(x)
        query, value = (by_head(op.linear(y, width, width), [0, 2, 1, 3]) for _ in range(2))
        key = by_head(op.linear(y, width, width), [0, 2, 3, 1])
        scale = op.constant(np.asarray(depth**-0.5, np.float32))
        attention = op("Softmax", op("Mul", op("MatMul", query, key), scale), axis=-1)
        y = op("Transpose", op("MatMul", attention, value), perm=[0, 2, 1, 3])
        x = op("Add", x, op.linear(op("Reshape", y, op.constant([0, tokens, width])), width, width))
        y = op("Gelu", op.linear(normalised(x), width, 4 * width))
        x = op("Add", x, op.linear(y, 4 * width, width))
    mean = op("ReduceMean", normalised(x), op.constant([1]), keepdims=0)
    return op.model(op.linear(mean, width, 1000), size)
