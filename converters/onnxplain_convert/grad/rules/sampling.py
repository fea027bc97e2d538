"""Reading an image at computed places: linear in the image, by the weights' slopes in the places."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.rules.convolution import channel_sum
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import Windows, kernel_of, reshaped, sizes_of, spatial, vector
from onnxplain_convert.graph.interpolation import Border, Reading, Taps, taps
from onnxplain_convert.graph.shapes import dims

RULES = RuleSet("sampling")


@RULES.rule("GridSample")
def grid_sample(b: Backward) -> Gradients:
    """y[n,c,o] = sum_taps X[n,c,tap] prod_axes weight_axis(grid[n,o]).

    At a kink (a place on an element, a border met) the derivative is PyTorch's; nearest has none in the grid.
    """
    op, grid, mode = b.op, b.input(1), b.attr("mode", "linear").removeprefix("bi")
    rank, align = b.rank(b.x) - 2, bool(b.attr("align_corners", 0))
    rows = reshaped(op, grid, 0, -1, rank)
    around, scales = [], []
    for axis in range(rank):  # the last axis stands first in the grid
        size = op.CastLike(op.dim(b.x, 2 + axis), grid)
        # -1 and 1 are the centres of the outermost elements, or their outer edges
        scale = op.Div(op.Sub(size, 1.0) if align else size, 2.0)
        place = op.Mul(op.Add(op.Gather(rows, rank - 1 - axis, axis=2), 1.0), scale)
        place = place if align else op.Sub(place, 0.5)
        around.append(taps(op, place, size, mode, Border(b.attr("padding_mode", "zeros"), about_centres=align)))
        scales.append(scale)
    reading, g = Reading.of(op, b.x, around), reshaped(op, b.g, 0, 0, -1)
    gx = reading.scattered(g) if b.wants(0) else None
    if not b.wants(1) or mode == "nearest":
        return gx, op.zeros_like(grid) if b.wants(1) else None
    along = op.ReduceSum(op.Mul(reading.elements(op.dim(g, 2)), op.Unsqueeze(g, [3])), [1], keepdims=0)
    parts = [_moved(op, along, reading, axis, scales[axis]) for axis in reversed(range(rank))]
    return gx, op.reshape_like(op.Concat(*parts, axis=2), grid)


def _moved(op: Emitter, along: ir.Value, reading: Reading, axis: int, scale: ir.Value | float) -> ir.Value:
    """The gradient in one coordinate of the places, (n, places, 1), from g times what was read, (n, places, taps)."""
    total = op.ReduceSum(op.Mul(along, reading.weight(slope_of=axis)), [2], keepdims=1)
    return total if scale == 1.0 else op.Mul(total, scale)


@RULES.rule("DeformConv")
def deform_conv(b: Backward) -> Gradients:
    """y[n,m,o] = sum_{c,k} w[m,c,k] mask[n,k,o] X[n,c, s o + d k - p + offset[n,k,o]], linear between the elements.

    Channels that share their offsets are one image: the batch is (n offset_group), the places are (k o).
    """
    op, w = b.op, b.input(1)
    windows = Windows.of(b.node, kernel := kernel_of(b.node, w), spatial(b.x, len(kernel)))
    group, shared, count = b.attr("group", 1), b.attr("offset_group", 1), int(np.prod(kernel))
    (outs, per_group), places = _channels(b), _places(op, b.y, windows.rank)
    alike = per_group * group // shared
    image = op.Reshape(b.x, vector(op, -1, alike, sizes_of(op, b.x, windows.rank)))
    reading = Reading.of(op, image, _deformed(b, windows, image))

    g = op.Reshape(b.g, [0, group, outs // group, -1])
    weights = op.Reshape(w, [group, outs // group, per_group * count])
    columns = op.MatMul(op.Transpose(weights, perm=[0, 2, 1]), g)
    columns = op.Reshape(columns, vector(op, -1, alike, count, places))
    mask = op.Reshape(b.input(4), vector(op, -1, 1, count, places)) if b.has(4) else None
    masked = op.Reshape(columns if mask is None else op.Mul(columns, mask), [0, 0, -1])

    gx = gw = goffset = gmask = None
    if b.wants(0):
        gx = op.reshape_like(reading.scattered(masked), b.x)
    if b.wants(1) or b.wants(2) or b.wants(4):
        elements = reading.elements(op.dim(masked, 2))
        read = op.ReduceSum(op.Mul(elements, op.Unsqueeze(reading.weight(), [1])), [3], keepdims=0)
        read = op.Reshape(read, [0, 0, count, -1])
        if b.wants(1):
            used = read if mask is None else op.Mul(read, mask)
            used = op.Transpose(op.Reshape(used, vector(op, -1, group, per_group * count, places)), perm=[0, 1, 3, 2])
            gw = op.reshape_like(op.ReduceSum(op.MatMul(g, used), [0], keepdims=0), w)
        if b.wants(2):
            along = op.ReduceSum(op.Mul(elements, op.Unsqueeze(masked, [3])), [1], keepdims=0)
            moved = [_moved(op, along, reading, axis, 1.0) for axis in range(windows.rank)]
            parts = op.Concat(*(op.Reshape(m, [0, count, 1, -1]) for m in moved), axis=2)
            goffset = op.reshape_like(parts, b.input(2))
        if b.wants(4):
            gmask = op.reshape_like(op.ReduceSum(op.Mul(columns, read), [1], keepdims=0), b.input(4))
    return gx, gw, goffset, channel_sum(op, b.g, windows.rank) if b.wants(3) else None, gmask


def _channels(b: Backward) -> tuple[int, int]:
    """Output channels, and input channels of a group."""
    outs, per_group = (dims(b.input(1)) or (None, None))[:2]
    if not isinstance(outs, int) or not isinstance(per_group, int):
        raise Unsupported(
            f"{b.node.op_type} {b.node.name!r}: the channels of its weight {b.input(1).name!r} are not known"
        )
    return outs, per_group


def _places(op: Emitter, value: ir.Value, rank: int) -> ir.Value:
    """The number of elements of a channel as an int64 vector of length one."""
    known = [size for size in spatial(value, rank) if isinstance(size, int)]
    return op.ints(int(np.prod(known))) if len(known) == rank else op.ReduceProd(op.Shape(value, start=2), keepdims=1)


def _deformed(b: Backward, windows: Windows, image: ir.Value) -> list[Taps]:
    """Per axis the places (n offset_group, k o): where an ordinary convolution reads, and the offset."""
    op, rank, count = b.op, windows.rank, int(np.prod(windows.kernel))
    sizes = sizes_of(op, b.y, rank)
    offsets = op.Reshape(b.input(2), vector(op, -1, count, rank, _places(op, b.y, rank)))
    within = np.indices(windows.kernel).reshape(rank, count, 1)
    found = []
    for axis in range(rank):
        steps = op.Range(op.const(np.int64(0)), op.Squeeze(op.dim(b.y, 2 + axis), [0]), op.const(np.int64(1)))
        lined = op.Reshape(steps, [-1 if a == axis else 1 for a in range(rank)])
        starts = op.Reshape(op.Mul(op.Expand(lined, sizes), windows.strides[axis]), [1, -1])
        first = within[axis] * windows.dilations[axis] - windows.pads[axis]
        regular = op.CastLike(op.Add(starts, op.const(first.astype(np.int64))), offsets)
        place = op.Reshape(op.Add(op.Gather(offsets, axis, axis=2), regular), [0, -1])
        found.append(taps(op, place, op.CastLike(op.dim(image, 2 + axis), offsets)))
    return found
