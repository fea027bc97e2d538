"""Shapes as tuples: an int where known, a string where symbolic, None where unknown."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

Dim = int | str | None
Dims = tuple[Dim, ...]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def dims(value: ir.Value) -> Dims | None:
    """The shape of a value, or None where its rank is unknown."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def static_dims(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of a value where every axis is known, else None."""
    shape = dims(value)
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def same(a: Dim, b: Dim) -> bool:
    """Are these two axes known to be equal?"""
    return a is not None and a == b


def is_float(value: ir.Value) -> bool:
    """Has this value a type that can be computed with: float16, bfloat16, float32 or float64?"""
    return value.dtype in _FLOATS


def is_sequence(value: ir.Value) -> bool:
    """Is this a sequence of tensors?"""
    return isinstance(value.type, ir.SequenceType)


def const_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The numpy array of an initializer or Constant node, else None."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def reads(node: ir.Node) -> list[ir.Value]:
    """What a node reads: its inputs, and what its subgraphs capture from outside them."""
    values = [v for v in node.inputs if v is not None]
    for graph in subgraphs(node):
        values += captured(graph)
    return values


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs in a node's attributes (If, Loop, Scan)."""
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def captured(graph: ir.Graph) -> list[ir.Value]:
    """Values from outside that a subgraph, or one nested in it, reads or returns; each once, in order."""
    inside = {*graph.inputs, *graph.initializers.values()}
    found: dict[ir.Value, None] = {}
    for node in graph:
        found.update(dict.fromkeys(v for v in reads(node) if v not in inside))
        inside.update(node.outputs)
    found.update(dict.fromkeys(v for v in graph.outputs if v not in inside))
    return list(found)
