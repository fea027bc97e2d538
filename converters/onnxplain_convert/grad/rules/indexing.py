"""Reading and writing at indices: what was read from one place several times is added up there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import const_array, dims

RULES = RuleSet("indexing")


@RULES.rule("Gather")
def gather(b: Backward) -> ir.Value:
    """One constant index: zero padding. Else a scatter-add along the axis, brought to the front."""
    rank = b.rank(b.x)
    axis, indices = b.attr("axis", 0) % rank, b.input(1)
    index, size = const_array(indices), (dims(b.x) or ())[axis]
    if index is not None and index.size == 1 and index.ndim <= 1 and isinstance(size, int):
        pads = [0] * (2 * rank)
        pads[axis] = int(index.ravel()[0]) % size
        pads[rank + axis] = size - 1 - pads[axis]
        return b.op.Pad(b.g if index.ndim else b.op.Unsqueeze(b.g, [axis]), pads)
    index_rank = b.rank(indices)
    g_rank = rank - 1 + index_rank
    front = list(range(axis, axis + index_rank))
    perm = front + [i for i in range(g_rank) if i not in front]
    g = b.op.Transpose(b.g, perm=perm) if axis and index_rank else b.g
    back = [axis, *(i for i in range(rank) if i != axis)]
    zeros = b.op.Transpose(b.op.zeros_like(b.x), perm=back) if axis else b.op.zeros_like(b.x)
    summed = b.op.ScatterND(zeros, b.op.Unsqueeze(indices, [-1]), g, reduction="add")
    return b.op.Transpose(summed, perm=[int(i) for i in np.argsort(back)]) if axis else summed


@RULES.rule("GatherElements")
def gather_elements(b: Backward) -> ir.Value:
    return b.op.ScatterElements(b.op.zeros_like(b.x), b.input(1), b.g, axis=b.attr("axis", 0), reduction="add")


@RULES.rule("GatherND")
def gather_nd(b: Backward) -> ir.Value | None:
    if b.attr("batch_dims", 0) == 0:
        return b.op.ScatterND(b.op.zeros_like(b.x), b.input(1), b.g, reduction="add")
    return _gather_nd_batched(b, int(b.attr("batch_dims")))


def _gather_nd_batched(b: Backward, batch: int) -> ir.Value:
    """Indices completed by the position of their batch: then it is a GatherND without batch axes."""
    op, indices = b.op, b.input(1)
    rank = b.rank(indices)
    columns = []
    for axis in range(batch):
        scalar = op.Reshape(op.dim(indices, axis), op.const(np.zeros(0, np.int64)))
        positions = op.Range(op.const(np.int64(0)), scalar, op.const(np.int64(1)))
        shaped = op.Reshape(positions, [-1 if k == axis else 1 for k in range(rank)])
        head = op.Slice(op.Shape(indices), [0], [rank - 1])
        columns.append(op.Expand(shaped, op.Concat(head, op.ints(1), axis=0)))
    full = op.Concat(*columns, indices, axis=-1)
    return op.ScatterND(op.zeros_like(b.x), full, b.g, reduction="add")


@RULES.rule("ScatterElements")
def scatter_elements(b: Backward) -> Gradients:
    axis, indices = b.attr("axis", 0), b.input(1)

    def read(x: ir.Value) -> ir.Value:
        return b.op.GatherElements(x, indices, axis=axis)

    def write(x: ir.Value, updates: ir.Value, reduction: str = "none") -> ir.Value:
        return b.op.ScatterElements(x, indices, updates, axis=axis, reduction=reduction)

    return _scattered(b, read, write)


@RULES.rule("ScatterND")
def scatter_nd(b: Backward) -> Gradients:
    indices = b.input(1)

    def read(x: ir.Value) -> ir.Value:
        return b.op.GatherND(x, indices)

    def write(x: ir.Value, updates: ir.Value, reduction: str = "none") -> ir.Value:
        return b.op.ScatterND(x, indices, updates, reduction=reduction)

    return _scattered(b, read, write)


def _scattered(b: Backward, read: Callable[[ir.Value], ir.Value], write: Callable[..., ir.Value]) -> Gradients:
    """What was overwritten gets nothing, what was written gets the gradient of where it went.

    A product shares it among its factors, a maximum equally among those that attain it (torch.scatter_reduce).
    """
    op, x, updates, g, reduction = b.op, b.input(0), b.input(2), b.g, b.attr("reduction", "none")
    if reduction == "none":
        return write(g, op.zeros_like(updates)), None, read(g) if b.wants(2) else None
    if reduction == "add":
        return g, None, read(g) if b.wants(2) else None
    zero, one = op.const(0.0, g.dtype), op.const(1.0, g.dtype)
    if reduction in ("max", "min"):
        mine = op.Cast(op.Equal(x, b.y), to=g.dtype)
        theirs = op.Cast(op.Equal(updates, read(b.y)), to=g.dtype)
        share = op.Div(g, write(mine, theirs, "add"))
        return op.Mul(share, mine), None, op.Mul(read(share), theirs)
    # the product of the others, right also where one factor is zero, or several
    x_zero, u_zero = op.Equal(x, zero), op.Equal(updates, zero)
    product = write(op.Where(x_zero, one, x), op.Where(u_zero, one, updates), "mul")
    zeros = write(op.Cast(x_zero, to=g.dtype), op.Cast(u_zero, to=g.dtype), "add")

    def others(factor: ir.Value, is_zero: ir.Value, product: ir.Value, zeros: ir.Value) -> ir.Value:
        at_zero = op.Where(op.Equal(zeros, one), product, zero)
        elsewhere = op.Where(op.Equal(zeros, zero), op.Div(product, op.Where(is_zero, one, factor)), zero)
        return op.Where(is_zero, at_zero, elsewhere)

    gx = op.Mul(g, others(x, x_zero, product, zeros))
    return gx, None, op.Mul(read(g), others(updates, u_zero, read(product), read(zeros)))


@RULES.rule("TopK")
def top_k(b: Backward) -> ir.Value:
    return b.op.ScatterElements(b.op.zeros_like(b.x), b.outputs[1], b.g, axis=b.attr("axis", -1))


@RULES.rule("Compress")
def compress(b: Backward) -> ir.Value:
    """The elements that were kept, back where they were; without ``axis`` those of the flattened tensor."""
    axis, op = b.attr("axis"), b.op
    kept = op.Reshape(op.NonZero(b.input(1)), [-1])
    if axis is None:
        flat = op.ScatterND(op.zeros_like(op.Reshape(b.x, [-1])), op.Unsqueeze(kept, [1]), b.g)
        return op.reshape_like(flat, b.x)
    return _put_along(b, op.Unsqueeze(kept, [1]), axis % b.rank(b.x))


@RULES.rule("ReverseSequence")
def reverse_sequence(b: Backward) -> ir.Value:
    """It is its own inverse."""
    return b.op.ReverseSequence(b.g, b.input(1), batch_axis=b.attr("batch_axis", 1), time_axis=b.attr("time_axis", 0))


@RULES.rule("OneHot")
def one_hot(b: Backward) -> Gradients:
    """values = (off, on): each collects the gradient of the places that it was written to."""
    op, depth = b.op, b.input(1)
    is_on = op.OneHot(b.x, depth, op.const(np.asarray([0.0, 1.0]), b.g.dtype), axis=b.attr("axis", -1))
    on = op.ReduceSum(op.Mul(b.g, is_on), keepdims=0)
    off = op.Sub(op.ReduceSum(b.g, keepdims=0), on)
    return None, None, op.Concat(op.Unsqueeze(off, [0]), op.Unsqueeze(on, [0]), axis=0)


@RULES.rule("Unique")
def unique(b: Backward) -> ir.Value:
    """Each value goes back to where it stood first."""
    op, axis = b.op, b.attr("axis")
    _, first, _, _ = op.emit("Unique", b.x, axis=axis, sorted=b.attr("sorted", 1), outputs=4)
    if axis is None:
        flat = op.ScatterND(op.zeros_like(op.Reshape(b.x, [-1])), op.Unsqueeze(first, [1]), b.g)
        return op.reshape_like(flat, b.x)
    return _put_along(b, op.Unsqueeze(first, [1]), axis % b.rank(b.x))


def _put_along(b: Backward, places: ir.Value, axis: int) -> ir.Value:
    """Slices of g along an axis at their places, zeros elsewhere."""
    rank = b.rank(b.x)
    front = [axis, *(i for i in range(rank) if i != axis)]
    zeros, g = b.op.Transpose(b.op.zeros_like(b.x), perm=front), b.op.Transpose(b.g, perm=front)
    return b.op.Transpose(b.op.ScatterND(zeros, places, g), perm=[int(i) for i in np.argsort(front)])
