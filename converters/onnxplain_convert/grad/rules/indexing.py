"""Reading and writing at indices: what was read from one place several times is added up there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import const_array, dims

RULES = RuleSet("indexing")


@RULES.rule("Gather")
def gather(b: Backward) -> ir.Value:
    """One constant index: zero padding. Else a scatter-add along the axis, brought to the front."""
    rank = len(dims(b.x) or ())
    axis, indices = b.attr("axis", 0) % rank, b.input(1)
    index, size = const_array(indices), (dims(b.x) or ())[axis]
    if index is not None and index.size == 1 and index.ndim <= 1 and isinstance(size, int):
        pads = [0] * (2 * rank)
        pads[axis] = int(index.ravel()[0]) % size
        pads[rank + axis] = size - 1 - pads[axis]
        return b.op.Pad(b.g if index.ndim else b.op.Unsqueeze(b.g, [axis]), pads)
    index_rank = len(dims(indices) or ())
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
    return b.op.ScatterElements(
        b.op.zeros_like(b.x), b.input(1), b.g, axis=b.attr("axis", 0), reduction="add"
    )


@RULES.rule("GatherND")
def gather_nd(b: Backward) -> ir.Value | None:
    if b.attr("batch_dims", 0) == 0:
        return b.op.ScatterND(b.op.zeros_like(b.x), b.input(1), b.g, reduction="add")
    return _gather_nd_batched(b, int(b.attr("batch_dims")))


def _gather_nd_batched(b: Backward, batch: int) -> ir.Value:
    """Indices completed by the position of their batch: then it is a GatherND without batch axes."""
    op, indices = b.op, b.input(1)
    rank = len(dims(indices) or ())
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
    axis, reduction, indices = b.attr("axis", 0), b.attr("reduction", "none"), b.input(1)
    updates = b.op.GatherElements(b.g, indices, axis=axis) if b.wants(2) else None
    if reduction == "add":
        return b.g, None, updates
    zeros = b.op.zeros_like(b.input(2))
    return b.op.ScatterElements(b.g, indices, zeros, axis=axis), None, updates


@RULES.rule("ScatterND")
def scatter_nd(b: Backward) -> Gradients:
    reduction, indices = b.attr("reduction", "none"), b.input(1)
    updates = b.op.GatherND(b.g, indices) if b.wants(2) else None
    if reduction == "add":
        return b.g, None, updates
    return b.op.ScatterND(b.g, indices, b.op.zeros_like(b.input(2))), None, updates


@RULES.rule("TopK")
def top_k(b: Backward) -> ir.Value:
    return b.op.ScatterElements(b.op.zeros_like(b.x), b.outputs[1], b.g, axis=b.attr("axis", -1))
