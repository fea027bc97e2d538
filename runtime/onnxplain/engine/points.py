"""The *rows* part of a program: from inputs, baselines and the rows' scalars to the points where the model is run.

x_row = b + alpha * (x + sigma * noise(key) - b)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.artifact import Dim
from onnxplain.engine import noise
from onnxplain.engine.emit import Emit
from onnxplain.engine.rowaxis import ROW


@dataclass(frozen=True)
class PathTensor:
    """A tensor whose rows lie on a path: its name, type, one row's shape, and the type that sums are made in."""

    name: str
    dtype: ir.DataType
    shape: tuple[Dim, ...]
    squeezed: bool
    """The model has no row axis here: one row a run, and the model sees it without the axis."""

    @property
    def wide(self) -> ir.DataType:
        """Interpolation and sums of half precision are done in single."""
        return ir.DataType.DOUBLE if self.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT


@dataclass(frozen=True)
class Point:
    """What the rows part makes of one tensor: the rows as the model takes them, and their displacements (R, E)."""

    rows: ir.Value
    displacement: ir.Value


@dataclass(frozen=True)
class RowInputs:
    """Indices of every row, int64 (R,): which request and which baseline; and a flag (): does any row want noise."""

    request: ir.Value
    baseline: ir.Value
    noisy: ir.Value

    @classmethod
    def declare(cls, op: Emit) -> RowInputs:
        return cls(
            request=op.input("row/request", ir.DataType.INT64, [ROW]),
            baseline=op.input("row/baseline", ir.DataType.INT64, [ROW]),
            noisy=op.input("run/noise", ir.DataType.BOOL, []),
        )


def point(op: Emit, tensor: PathTensor, row: RowInputs) -> Point:
    """Inputs ``input/t`` (Q, ...), ``baseline/t`` (B, ...); per row ``row/alpha/t``, ``row/sigma/t``, ``row/key/t``."""
    wide, shape, rank = tensor.wide, tensor.shape, len(tensor.shape) + 1
    given = op.input(f"input/{tensor.name}", tensor.dtype, ["requests", *shape])
    bases = op.input(f"baseline/{tensor.name}", tensor.dtype, ["baselines", *shape])
    alpha = op.unsqueezed(op.input(f"row/alpha/{tensor.name}", wide, [ROW]), rank)
    sigma = op.input(f"row/sigma/{tensor.name}", wide, [ROW])
    key = op.input(f"row/key/{tensor.name}", ir.DataType.UINT64, [ROW])

    clean = op.cast(op("Gather", given, row.request, axis=0), tensor.dtype, wide)
    base = op.cast(op("Gather", bases, row.baseline, axis=0), tensor.dtype, wide)
    # In an If, so that runs without noise do not pay for it.
    noisy = op(
        "If",
        row.noisy,
        then_branch=op.branch("noise", lambda b: _add_noise(b, tensor, clean, sigma, key), wide),
        else_branch=op.branch("no_noise", lambda b: b("Identity", clean), wide),
    )
    _annotate(noisy, wide, [ROW, *shape])
    displacement = op("Sub", noisy, base)
    between = op("Add", base, op("Mul", alpha, displacement))
    # b + (x - b) rounds; a row at the end of the path is the input, bit for bit.
    at_end = op("Equal", alpha, op.constant(1.0, wide.numpy()))
    rows = op.cast(op("Where", at_end, noisy, between), wide, tensor.dtype)
    _annotate(rows, tensor.dtype, [ROW, *shape])
    if tensor.squeezed:
        rows = op("Squeeze", rows, op.ints(0))
    return Point(rows, op.flat(displacement, squeezed=False))


def _add_noise(op: Emit, tensor: PathTensor, clean: ir.Value, sigma: ir.Value, key: ir.Value) -> ir.Value:
    static = [d for d in tensor.shape if isinstance(d, int)]
    if len(static) == len(tensor.shape):
        size, shape = op.ints(int(np.prod(static, dtype=np.int64))), op.ints(-1, *static)
    else:
        shape = op("Shape", clean)
        size = op("ReduceProd", op("Slice", shape, op.ints(1), op.ints(len(tensor.shape) + 1)), keepdims=1)
    flat = noise.normal(op, key, size, tensor.wide)
    scaled = op("Reshape", op("Mul", flat, op("Unsqueeze", sigma, op.ints(1))), shape)
    return op("Add", clean, scaled)


def _annotate(value: ir.Value, dtype: ir.DataType, shape: list[Dim]) -> None:
    value.dtype, value.shape = dtype, ir.Shape(shape)
