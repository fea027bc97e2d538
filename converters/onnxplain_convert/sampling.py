"""Inputs to try a model with at conversion: random rows of the right type, in the range that integer inputs allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]

SIZES = (16, 64, 224, 1)
"""Lengths to try for axes of unknown size other than the first: text, small and ordinary pictures."""


def random_feeds(
    model: ir.Model, n: int, size: int, rng: np.random.Generator, example: Mapping[str, Array] | None = None
) -> dict[str, Array] | None:
    """One array per input with ``n`` rows where the first axis is free, unknown other axes of length ``size``.

    Rows differ: standard normal values, indices below the height of the table that they are looked up in; other
    integers (masks) are one. An ``example`` is kept as the first rows, and followed by noisy copies of it. None where
    an input has no known rank or a type that cannot be made up.
    """
    feeds = {}
    for value in model.graph.inputs:
        assert value.name is not None
        if example is not None and value.name in example:
            feeds[value.name] = _like(np.asarray(example[value.name]), value, n, rng)
            continue
        if value.shape is None or value.dtype is None:
            return None
        shape = [d if isinstance(d, int) else n if axis == 0 else size for axis, d in enumerate(value.shape)]
        made = _random(value, shape, rng)
        if made is None:
            return None
        feeds[value.name] = made
    return feeds


def _like(example: Array, value: ir.Value, n: int, rng: np.random.Generator) -> Array:
    if example.dtype.kind == "f" and value.dtype is not None and value.dtype.is_floating_point():
        example = example.astype(value.dtype.numpy())
    first = value.shape[0] if value.shape is not None and len(value.shape) else None
    if isinstance(first, int) or first is None or not example.ndim:
        return example
    rows = example[np.arange(n) % len(example)].copy()
    if rows.dtype.kind == "f":
        noise = rng.standard_normal(rows.shape) * (0.1 * float(rows.std()) or 1.0)
        rows[len(example) :] += noise[len(example) :].astype(rows.dtype)
    elif rows.ndim > 1:
        for i in range(len(example), n):  # other rows of integers: the same values in another order
            rows[i] = np.roll(rows[i], i, axis=-1)
    return rows


def _random(value: ir.Value, shape: list[int], rng: np.random.Generator) -> Array | None:
    assert value.dtype is not None
    if value.dtype == ir.DataType.STRING:
        return None
    dtype = value.dtype.numpy()
    if value.dtype.is_floating_point():
        return np.asarray(rng.standard_normal(shape), dtype)
    if dtype == np.bool_:
        return np.ones(shape, np.bool_)
    height = table_height(value)
    if height is not None:
        return np.asarray(rng.integers(0, height, shape), dtype)
    if dtype in (np.uint8, np.int8):
        return np.asarray(rng.integers(0, 128, shape), dtype)
    return np.ones(shape, dtype)


def table_height(value: ir.Value) -> int | None:
    """Rows of the smallest table that an integer tensor looks up directly (through Cast, Reshape and the like)."""
    heights: list[int] = []
    todo, seen = [value], set[ir.Value]()
    while todo:
        here = todo.pop()
        for use in here.uses():
            node = use.node
            if node.op_type == "Gather" and use.idx == 1 and node.inputs[0] is not None:
                table, axis = node.inputs[0].shape, node.attributes.get_int("axis", 0) or 0
                height = table[axis] if table is not None else None
                if isinstance(height, int):
                    heights.append(height)
            elif node.op_type in INDEX_PRESERVING and use.idx == 0 and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                todo.append(node.outputs[0])
    return min(heights, default=None)


INDEX_PRESERVING = frozenset(
    {"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Expand"}
)
"""Operators through which an index stays an index."""
