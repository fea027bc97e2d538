"""What is explained, inside a program: seed tensors from target positions and weights, and every row's score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxplain.artifact import Dim
from onnxplain.engine.emit import Emit
from onnxplain.engine.rowaxis import ROW


@dataclass(frozen=True)
class OutputTensor:
    """The explained output: its name, type, one row's shape, and whether it lacks a row axis."""

    name: str
    dtype: ir.DataType
    shape: tuple[Dim, ...]
    squeezed: bool

    @property
    def wide(self) -> ir.DataType:
        return ir.DataType.DOUBLE if self.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT

    @property
    def size(self) -> int | None:
        """Positions of one row, None where the shape is not known before a run."""
        sizes = [d for d in self.shape if isinstance(d, int)]
        return int(np.prod(sizes, dtype=np.int64)) if len(sizes) == len(self.shape) else None


def explained(op: Emit, y: ir.Value, output: OutputTensor, request: ir.Value) -> ir.Value:
    """Outputs ``score`` (R,), ``top`` (R,) and ``size`` (1,); returns the seed tensor, of y's type and shape.

    Inputs ``target/index`` int64 and ``target/weight`` (Q, K): K positions of a request, -1 for the row's own largest.
    Positions that do not exist count for nothing (the engine reports them from ``size``).
    """
    wide = output.wide
    zero = op.constant(0.0, wide.numpy())
    index = op.input("target/index", ir.DataType.INT64, ["requests", "targets"])
    weight = op.input("target/weight", wide, ["requests", "targets"])

    flat = op.cast(op.flat(y, output.squeezed), output.dtype, wide)
    size = op.ints(output.size) if output.size is not None else op("Slice", op("Shape", flat), op.ints(1), op.ints(2))
    top = op("ArgMax", flat, axis=1, keepdims=1)
    is_top = op("Less", index, op.constant(0, np.int64))
    # Two operands at most: the wanted positions are those that exist and are not "the top".
    wanted = op("And", op("Not", is_top), op("Less", index, size))
    position = op("Mul", index, op("Cast", wanted, to=int(ir.DataType.INT64)))
    requests = op("Slice", op("Shape", index), op.ints(0), op.ints(1))
    empty = op("Expand", zero, op("Concat", requests, size, axis=0))
    fixed = op("ScatterElements", empty, position, op("Where", wanted, weight, zero), axis=1, reduction="add")
    top_weight = op("ReduceSum", op("Where", is_top, weight, zero), op.ints(1), keepdims=1)
    seed = op(
        "ScatterElements",
        op("Gather", fixed, request, axis=0),
        top,
        op("Gather", top_weight, request, axis=0),
        axis=1,
        reduction="add",
    )
    # Masked logits may be -inf, and 0 * -inf is not 0.
    terms = op("Where", op("Equal", seed, zero), zero, op("Mul", seed, flat))
    op.output("score", op("ReduceSum", terms, op.ints(1), keepdims=0), wide, [ROW])
    op.output("top", op("Squeeze", top, op.ints(1)), ir.DataType.INT64, [ROW])
    op.output("size", size, ir.DataType.INT64, [1])
    return op("Reshape", op.cast(seed, wide, output.dtype), _shape(op, y, output))


def _shape(op: Emit, y: ir.Value, output: OutputTensor) -> ir.Value:
    if output.size is None:
        return op("Shape", y)
    shape = [d for d in output.shape if isinstance(d, int)]
    return op.ints(*shape) if output.squeezed else op.ints(-1, *shape)
