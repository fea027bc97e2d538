"""Shapes as tuples: an int where known, a string where symbolic, None where unknown."""

from __future__ import annotations

import onnx_ir as ir

Dim = int | str | None
Dims = tuple[Dim, ...]


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
    return value.dtype is not None and value.dtype.is_floating_point()


def const_array(value: ir.Value | None):  # type: ignore[no-untyped-def]
    """The numpy array of an initializer or Constant node, else None."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
