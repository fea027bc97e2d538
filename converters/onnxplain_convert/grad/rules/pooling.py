"""Pooling. Of equal maxima in a window the first takes the gradient, as in PyTorch."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.rules.convolution import crop, padded, transposed
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import Windows, reshaped, sizes_of, spatial, vector
from onnxplain_convert.graph.shapes import dims

RULES = RuleSet("pooling")

_ONE = ir.tensor(np.ones(1, np.float32), name="value")


@RULES.rule("MaxPool")
def max_pool(b: Backward) -> ir.Value:
    """g goes to where the maximum stood: the node's Indices, flat over the whole tensor."""
    op, windows = b.op, _windows(b)
    attributes = {name: a.value for name, a in b.node.attributes.items()}
    if attributes.get("storage_order"):
        del attributes["storage_order"]  # row by row, as Reshape counts
    _, indices = op.emit("MaxPool", b.x, outputs=2, **attributes)
    g = b.g
    if max(windows.dilations) > 1 and windows.padded:
        g = op.Where(op.Less(indices, 0), 0.0, g)  # a dilated window can miss every element: nothing took part
    flat = op.Reshape(op.zeros_like(b.x), [-1])
    gx = op.ScatterElements(
        flat,
        op.Reshape(indices, [-1]),
        op.Reshape(g, [-1]),
        axis=0,
        reduction="add" if windows.overlap else "none",  # on CUDA, adding is not deterministic
    )
    return op.reshape_like(gx, b.x)


@RULES.rule("MaxUnpool")
def max_unpool(b: Backward) -> ir.Value:
    """Every element takes the gradient of the place that it was put at, also one that another element overwrote."""
    op, indices = b.op, b.input(1)
    if b.has(2):  # runtimes differ in what the indices count then: ask this one by sending the elements' numbers
        return _where_put(b)
    return op.reshape_like(op.Gather(op.Reshape(b.g, [-1]), op.Reshape(indices, [-1])), b.x)


@RULES.rule("GlobalMaxPool")
def global_max_pool(b: Backward) -> ir.Value:
    op = b.op
    flat = reshaped(op, b.x, 0, 0, -1)
    best = op.ArgMax(flat, axis=2, keepdims=1)
    gx = op.ScatterElements(op.zeros_like(flat), best, reshaped(op, b.g, 0, 0, -1), axis=2)
    return op.reshape_like(gx, b.x)


@RULES.rule("AveragePool")
def average_pool(b: Backward) -> ir.Value:
    """Every element of a window receives g / count."""
    windows = _windows(b)
    return spread(b.op, _per_element(b, windows), windows, b.x)


@RULES.rule("GlobalAveragePool")
def global_average_pool(b: Backward) -> ir.Value:
    return b.op.spread(b.op.Div(b.g, _spatial_size(b)), b.x)


@RULES.rule("LpPool")
def lp_pool(b: Backward) -> ir.Value:
    """y = (sum |x|^p)^(1/p): dy/dx = sign(x) (|x| / y)^(p-1)."""
    return b.op.Mul(spread(b.op, _over_norm(b), _windows(b), b.x), _signed_power(b))


@RULES.rule("GlobalLpPool")
def global_lp_pool(b: Backward) -> ir.Value:
    return b.op.Mul(_over_norm(b), _signed_power(b))


def spread(op: Emitter, g: ir.Value, windows: Windows, like: ir.Value) -> ir.Value:
    """Every element receives the sum of ``g`` over the windows it lies in: the transpose of sum-pooling.

    Where windows tile the tensor, each value is repeated; with stride 1 it is sum-pooling again; else a transposed
    convolution with ones, channel by channel.
    """
    n = windows.rank
    windows = windows.cut(spatial(like, n), spatial(g, n))
    kernel = list(windows.kernel)
    rests = windows.rest(spatial(like, n), spatial(g, n))
    if windows.tile and all(rest is not None and rest >= 0 for rest in rests):
        scales = op.const(np.array([1, 1, *kernel], np.float32))
        gx = op.Resize(g, None, scales, coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        if any(rests):
            gx = op.Pad(gx, [0] * (n + 4) + [rest or 0 for rest in rests])
        return op.typed(gx, like)
    if windows.glide:
        pads = [k - 1 - p for k, p in zip(kernel, windows.pads, strict=False)] * 2
        mean = op.AveragePool(g, kernel_shape=kernel, pads=pads, count_include_pad=1)
        return op.typed(op.Mul(mean, float(prod(kernel))), like)
    alone = vector(op, -1, 1, sizes_of(op, g, n))
    ones = op.const(np.ones((1, 1, *kernel)), g.dtype)
    return op.reshape_like(transposed(op, op.Reshape(g, alone), ones, windows, like), like)


def _where_put(b: Backward) -> ir.Value:
    """g at the place of every element: the elements' numbers, from 1 on, put there by the operator itself."""
    op = b.op
    count = op.Size(b.x)
    numbers = op.Add(op.Range(op.const(np.int64(0)), count, op.const(np.int64(1))), 1)
    sent = op.reshape_like(op.CastLike(numbers, b.x), b.x)
    attributes = {name: a.value for name, a in b.node.attributes.items()}
    put = op.Reshape(op.Cast(op.MaxUnpool(sent, b.input(1), b.input(2), **attributes), to=ir.DataType.INT64), [-1])
    empty = op.CastLike(op.ConstantOfShape(op.Reshape(op.Add(count, 1), [1])), b.g)
    gx = op.ScatterElements(empty, put, op.Reshape(b.g, [-1]), axis=0)  # 0: where no element was put
    return op.reshape_like(op.Slice(gx, [1], [2**63 - 1], [0]), b.x)


def _windows(b: Backward) -> Windows:
    kernel = b.attr("kernel_shape")
    return Windows.of(b.node, kernel, spatial(b.x, len(kernel)))


def _per_element(b: Backward, windows: Windows) -> ir.Value:
    """g / count, where a window counts its padding or not, but never what ceil_mode reaches beyond it."""
    n, full = windows.rank, float(prod(windows.kernel))
    rests = windows.rest(spatial(b.x, n), spatial(b.y, n))
    beyond = bool(b.attr("ceil_mode", 0)) and any(rest is None or rest < 0 for rest in rests)
    with_pad = bool(b.attr("count_include_pad", 0))
    if not beyond and (with_pad or not windows.padded):
        return b.op.Div(b.g, full)
    return b.op.typed(b.op.Div(b.g, _counts(b, windows, rests if beyond else [0] * n, with_pad)), b.y)


def _counts(b: Backward, windows: Windows, rests: list[int | None], with_pad: bool) -> ir.Value:
    """How many elements each window counts: ones convolved with ones, which is folded where the sizes are known."""
    op, n = b.op, windows.rank
    size, sizes = sizes_of(op, b.x, n), spatial(b.x, n)
    if with_pad and windows.begin is not None and windows.end is not None:
        more = [p + q for p, q in zip(windows.begin, windows.end, strict=True)]
        size = op.Add(size, op.ints(*more))
        sizes = tuple(s + m if isinstance(s, int) else s for s, m in zip(sizes, more, strict=True))
        windows = windows.without_padding()
    whole, windows = windows.kernel, windows.cut(sizes, spatial(b.y, n))
    rests = [rest if k == w else 0 for rest, k, w in zip(rests, windows.kernel, whole, strict=True)]
    begin, end = windows.begin or (0,) * n, windows.end or (0,) * n
    inside = op.CastLike(op.ConstantOfShape(vector(op, 1, 1, size), value=_ONE), b.g)
    if windows.begin is None:
        inside = padded(op, inside, *windows.runtime_padding(op, b.x))
    beyond = [s - 1 if rest is None else max(0, -rest) for rest, s in zip(rests, windows.strides, strict=True)]
    counts = op.Conv(
        inside,
        op.const(np.ones((1, 1, *windows.kernel)), b.g.dtype),
        strides=list(windows.strides),
        dilations=list(windows.dilations),
        pads=[*begin, *(p + q for p, q in zip(end, beyond, strict=True))],
    )
    return crop(op, counts, [0] * n, b.y, n) if None in rests else counts


def _spatial_size(b: Backward) -> ir.Value:
    """How many elements stand behind one channel, in the type of g."""
    sizes = (dims(b.x) or ())[2:]
    known = [s for s in sizes if isinstance(s, int)]
    if b.x.shape is not None and len(known) == len(sizes):
        return b.op.const(float(prod(known)), b.g.dtype)
    return b.op.CastLike(b.op.ReduceProd(b.op.Shape(b.x, start=2), keepdims=0), b.g)


def _over_norm(b: Backward) -> ir.Value:
    """g / y^(p-1), 0 where y = 0: there p = 2 has no derivative, and higher p have 0."""
    op, p = b.op, b.attr("p", 2)
    if p == 1:
        return b.g
    zero = op.Equal(b.y, 0.0)
    return op.Where(zero, 0.0, op.Div(b.g, op.Pow(op.Where(zero, 1.0, b.y), float(p - 1))))


def _signed_power(b: Backward) -> ir.Value:
    """sign(x) |x|^(p-1)."""
    op, p = b.op, b.attr("p", 2)
    if p == 2:
        return b.x
    return op.Sign(b.x) if p == 1 else op.Mul(op.Sign(b.x), op.Pow(op.Abs(b.x), float(p - 1)))
