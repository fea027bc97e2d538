"""Moving elements about without computing: reshapes, transposes, slices, joins, padding, repetition."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import const_array, dims, static_dims

RULES = RuleSet("movement")


@RULES.rule("Reshape", "Flatten")
def reshape(b: Backward) -> ir.Value:
    return b.op.reshape_like(b.g, b.x)


@RULES.rule("Squeeze")
def squeeze(b: Backward) -> ir.Value:
    return b.op.Unsqueeze(b.g, b.input(1)) if b.has(1) else b.op.reshape_like(b.g, b.x)


@RULES.rule("Unsqueeze")
def unsqueeze(b: Backward) -> ir.Value:
    return b.op.Squeeze(b.g, b.input(1))


@RULES.rule("Transpose")
def transpose(b: Backward) -> ir.Value:
    perm = b.attr("perm")
    return b.op.Transpose(b.g, perm=None if perm is None else [int(i) for i in np.argsort(perm)])


@RULES.rule("Expand")
def expand(b: Backward) -> ir.Value:
    """Broadcasting, which the walk undoes."""
    return b.g


@RULES.rule("Tile")
def tile(b: Backward) -> ir.Value:
    """As (repeat, axis) pairs of axes, the repeats summed."""
    rank, repeats, shape = b.rank(b.x), const_array(b.input(1)), static_dims(b.x)
    if repeats is not None and shape is not None:
        pairs: ir.Value = b.op.ints(*(int(n) for pair in zip(repeats, shape, strict=True) for n in pair))
    else:
        columns = [b.op.Unsqueeze(v, [1]) for v in (b.input(1), b.op.Shape(b.x))]
        pairs = b.op.Reshape(b.op.Concat(*columns, axis=1), [-1])
    if not rank:
        return b.g
    return b.op.ReduceSum(b.op.Reshape(b.g, pairs, allowzero=1), list(range(0, 2 * rank, 2)), keepdims=0)


@RULES.rule("Concat")
def concat(b: Backward) -> Gradients:
    if len(b.inputs) == 1:
        return (b.g,)
    axis = b.attr("axis")
    sizes = [b.op.dim(b.input(i), axis) for i in range(len(b.inputs))]
    known = [const_array(size) for size in sizes]
    constant = [int(k[0]) for k in known if k is not None]
    split = b.op.ints(*constant) if len(constant) == len(sizes) else b.op.Concat(*sizes, axis=0)
    parts: Gradients = b.op.emit("Split", b.g, split, axis=axis, outputs=len(b.inputs))
    return parts


@RULES.rule("Split")
def split(b: Backward) -> ir.Value:
    if len(b.outputs) == 1:
        return b.g
    return b.op.Concat(*(b.g_or_zeros(i) for i in range(len(b.outputs))), axis=b.attr("axis", 0))


@RULES.rule("Slice")
def slice_(b: Backward) -> ir.Value:
    """Each sliced axis is put back: by zero padding where the step is 1, else through the inverse index."""
    axes = _slice_axes(b)
    if axes is None:
        return _unslice_flat(b)
    starts, ends, steps = (const_array(b.inputs[i]) if b.has(i) else None for i in (1, 2, 4))
    shape, g = dims(b.x) or (), b.g
    before, after, general = [0] * len(shape), [0] * len(shape), []
    for k, axis in enumerate(axes):
        size = shape[axis]
        if starts is None or ends is None or (b.has(4) and steps is None) or not isinstance(size, int):
            general.append((k, axis))
            continue
        start, stop, step = slice(*_bounds(starts[k], ends[k], 1 if steps is None else steps[k], size)).indices(size)
        if step != 1:
            general.append((k, axis))
        elif stop > start:
            before[axis], after[axis] = start, size - stop
        else:
            return b.op.zeros_like(b.x)
    if any(before) or any(after):
        g = b.op.Pad(g, [*before, *after])
    for k, axis in general:
        g = _unslice(b, g, k, axis)
    return g


def _slice_axes(b: Backward) -> list[int] | None:
    """The sliced axes, None where only a run can tell."""
    shape, count = dims(b.x), static_dims(b.input(1))
    axes = const_array(b.inputs[3]) if b.has(3) else None
    if axes is None and count is not None and not b.has(3):
        axes = np.arange(count[0])
    return None if shape is None or axes is None else [int(a) % len(shape) for a in axes]


def _unslice_flat(b: Backward) -> ir.Value:
    """Slice the positions in the same way, and put every element of g back at its own."""
    op = b.op
    size = op.Size(b.x)
    positions = op.Range(op.const(np.int64(0)), size, op.const(np.int64(1)))
    taken = op.Slice(op.Reshape(positions, op.shape(b.x), allowzero=1), *b.inputs[1:])
    zeros = op.zeros_like(op.Reshape(b.x, [-1]))
    flat = op.ScatterElements(zeros, op.Reshape(taken, [-1]), op.Reshape(b.g, [-1]), axis=0)
    return op.reshape_like(flat, b.x)


def _bounds(start: int, end: int, step: int, size: int) -> tuple[int, int | None, int]:
    """ONNX's bounds as Python's: the same, but an end before the first element counts as none for a negative step."""
    start, end, step = int(start), int(end), int(step)
    return start, (None if step < 0 and end < -size else end), step


def _unslice(b: Backward, g: ir.Value, k: int, axis: int) -> ir.Value:
    op = b.op
    size = op.dim(b.x, axis)
    scalar = op.Reshape(size, op.const(np.zeros(0, np.int64)))
    positions = op.Range(op.const(np.int64(0)), scalar, op.const(np.int64(1)))
    one = op.ints(k)
    taken = op.Slice(
        positions,
        *(op.Gather(b.input(i), one) for i in (1, 2)),
        op.ints(0),
        op.Gather(b.input(4), one) if b.has(4) else None,
    )
    # where each element of x went: its place in g, or the row of zeros appended behind g
    count = op.Shape(taken)
    places = op.Range(op.const(np.int64(0)), op.Reshape(count, op.const(np.zeros(0, np.int64))), op.const(np.int64(1)))
    inverse = op.ScatterElements(op.Expand(count, size), taken, places, axis=0)
    rank = b.rank(b.x)
    tail = [0] * (2 * rank)
    tail[rank + axis] = 1
    return op.Gather(op.Pad(g, tail), inverse, axis=axis)


@RULES.rule("Pad")
def pad(b: Backward) -> Gradients:
    """Constant mode crops ``g``; the other modes copied elements of x: what they got is added up where it came from."""
    mode = b.attr("mode", "constant")
    axes = b.input(3) if b.has(3) else None
    if mode == "constant":
        gx = b.op.typed(_cropped(b, axes), b.x)
        total = b.op.ReduceSum(b.g, keepdims=0)
        gvalue = b.op.Sub(total, b.op.ReduceSum(gx, keepdims=0)) if b.has(2) and b.wants(2) else None
        return gx, None, gvalue
    rank = b.rank(b.x)
    g, pads, listed = b.g, b.input(1), np.arange(rank) if axes is None else const_array(axes)
    if listed is None:
        assert axes is not None
        pads, listed = _on_all_axes(b.op, pads, axes, rank), np.arange(rank)
    for k, axis in enumerate(int(a) % rank for a in listed):
        g = _unpad(b, g, axis, b.op.Gather(pads, b.op.ints(k, k + len(listed))), mode)
    return g, None, None


def _on_all_axes(op: Emitter, pads: ir.Value, axes: ir.Value, rank: int) -> ir.Value:
    """The pads of axes that are known only when this runs, as pads of every axis."""
    begin = op.Mod(op.Cast(axes, to=ir.DataType.INT64), rank)
    return op.ScatterElements(np.zeros(2 * rank, np.int64), op.Concat(begin, op.Add(begin, rank), axis=0), pads, axis=0)


def _cropped(b: Backward, axes: ir.Value | None) -> ir.Value:
    """Without what was added; what negative pads cut off comes back as zeros."""
    op, pads = b.op, const_array(b.input(1))
    if pads is not None:
        begin, end = np.split(pads.ravel(), 2)
        far = np.iinfo(np.int64).max
        listed = axes if axes is not None else np.arange(len(begin), dtype=np.int64)
        g = b.g
        if (begin > 0).any() or (end > 0).any():
            stops = np.where(end > 0, -end, far)
            g = op.Slice(g, np.maximum(begin, 0), stops, listed)
        if (begin < 0).any() or (end < 0).any():
            g = op.Pad(g, np.maximum(-pads, 0), None, axes)
        return g
    zero = op.ints(0)
    begin_, end_ = op.emit("Split", b.input(1), axis=0, num_outputs=2, outputs=2)
    listed_ = axes if axes is not None else op.Range(op.const(np.int64(0)), op.Size(begin_), op.const(np.int64(1)))
    sizes = op.Gather(op.Shape(b.g), listed_)
    g = op.Slice(b.g, op.Max(begin_, zero), op.Sub(sizes, op.Max(end_, zero)), listed_)
    return op.Pad(g, op.Max(op.Neg(b.input(1)), zero), None, axes)


def _unpad(b: Backward, g: ir.Value, axis: int, pads: ir.Value, mode: str) -> ir.Value:
    """One axis: pad the positions in the same mode, and add every element of g to the position it was copied from."""
    op = b.op
    scalar = op.Reshape(op.dim(b.x, axis), op.const(np.zeros(0, np.int64)))
    positions = op.Range(op.const(np.int64(0)), scalar, op.const(np.int64(1)))
    source = op.Pad(op.Cast(positions, to=int(ir.DataType.FLOAT)), pads, mode=mode)
    source = op.Cast(source, to=int(ir.DataType.INT64))
    rank = b.rank(b.x)
    perm = [axis, *(i for i in range(rank) if i != axis)]
    moved = op.Transpose(g, perm=perm) if axis else g
    shape = op.Concat(op.dim(b.x, axis), op.Slice(op.Shape(moved), [1], [rank]), axis=0) if rank > 1 else op.dim(b.x, 0)
    zeros = op.zeros(shape, b.g)
    summed = op.ScatterND(zeros, op.Unsqueeze(source, [1]), moved, reduction="add")
    return op.Transpose(summed, perm=[int(i) for i in np.argsort(perm)]) if axis else summed


@RULES.rule("Trilu")
def trilu(b: Backward) -> ir.Value:
    return b.op.Trilu(b.g, b.input(1) if b.has(1) else None, upper=b.attr("upper", 1))


@RULES.rule("CenterCropPad")
def center_crop_pad(b: Backward) -> ir.Value:
    """What was cropped comes back as zeros and the other way round: the same operator to the old sizes."""
    axes = b.attr("axes")
    sizes = b.op.shape(b.x) if axes is None else b.op.Gather(b.op.shape(b.x), axes)
    return b.op.CenterCropPad(b.g, sizes, axes=axes)
