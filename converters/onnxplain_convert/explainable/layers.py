"""The layers of a model in execution order, each with the weights that are its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.artifact import Layer
from onnxplain_convert.graph.shapes import dims, is_float, reads

_WEIGHTED = frozenset({
    "BatchNormalization", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gather", "Gemm",
    "GroupNormalization", "InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "PRelu", "RNN",
})  # fmt: skip
"""Operators whose constant float inputs are weights even where they hold a single number."""

_SETTINGS = frozenset({"Clip", "Dropout", "Pad", "Pow", "Range", "Resize", "RoiAlign", "Upsample", "Where"})
"""Operators whose constant float inputs are settings (a bound, a ratio, a scale), never weights."""


def layers(model: ir.Model, nodes: Sequence[ir.Node]) -> tuple[Layer, ...]:
    """One layer per node of ``nodes`` (the forward pass) with a floating-point result that depends on an input."""
    live: set[ir.Value] = set(model.graph.inputs)
    found: list[Layer] = []
    for node in nodes:
        if live.isdisjoint(reads(node)):
            continue
        live.update(node.outputs)
        tensor = node.outputs[0]
        if is_float(tensor) and tensor.name and node.name:
            op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            found.append(Layer(node.name, op, tensor.name, dims(tensor), _weights(node, live)))
    return tuple(found)


def _weights(node: ir.Node, live: set[ir.Value]) -> tuple[str, ...]:
    """Constant float inputs of a node, through transposes, casts and dequantisation of them."""
    if node.op_type in _SETTINGS and not node.domain:
        return ()
    names: list[str] = []
    todo = [v for v in node.inputs if v is not None and v not in live]
    while todo:
        value = todo.pop(0)
        producer = value.producer()
        if producer is not None:
            todo.extend(v for v in producer.inputs if v is not None)
        elif value.name and value.is_initializer() and _is_weight(node, value):
            names.append(value.name)
    return tuple(dict.fromkeys(names))


def _is_weight(node: ir.Node, value: ir.Value) -> bool:
    if value.const_value is None:
        return False
    several = math.prod(value.const_value.shape.numpy()) > 1
    quantised = value.const_value.dtype in (ir.DataType.INT8, ir.DataType.UINT8) and several
    return quantised or (is_float(value) and (several or node.op_type in _WEIGHTED))
