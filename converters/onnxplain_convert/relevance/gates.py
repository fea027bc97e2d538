"""Where a signal is gated: ReLU-like activations, whatever operator spells them."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.graph.shapes import const_array

ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "ThresholdedRelu")
"""Operators that are a gate by themselves. Clip, Max and Where are one in some of their uses."""

SPELLINGS = ("Clip", "Max", "Where")

_GREATER, _LESS = {"Greater", "GreaterOrEqual"}, {"Less", "LessOrEqual"}


def gated(node: ir.Node) -> int | None:
    """The index of the input that this node gates at zero, None where the node is no gate.

    Clip from 0 upwards (ReLU6), Max(x, 0), and Where(x > 0, x, ...) or Where(x < 0, ..., x) count as gates.
    """
    if node.domain:
        return None
    if node.op_type in ACTIVATIONS:
        return 0
    if node.op_type == "Clip":
        return 0 if len(node.inputs) > 1 and _is_zero(node.inputs[1]) else None
    if node.op_type == "Max" and len(node.inputs) == 2:
        return next((i for i in (0, 1) if _is_zero(node.inputs[1 - i])), None)
    if node.op_type == "Where":
        return _where_gate(node)
    return None


def _is_zero(value: ir.Value | None) -> bool:
    array = const_array(value)
    return array is not None and bool((array == 0).all())


def _where_gate(node: ir.Node) -> int | None:
    condition, positive, negative = node.inputs
    test = condition.producer() if condition is not None else None
    if test is None or test.op_type not in _GREATER | _LESS:
        return None
    left, right = test.inputs
    if _is_zero(right):
        x, is_positive = left, test.op_type in _GREATER
    elif _is_zero(left):
        x, is_positive = right, test.op_type in _LESS
    else:
        return None
    index = 1 if is_positive else 2
    return index if (positive if is_positive else negative) is x else None
