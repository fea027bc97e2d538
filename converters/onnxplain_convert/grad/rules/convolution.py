"""Convolution and its transpose, each the other's gradient: in data, weight and bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.geometry import Windows, kernel_of, reshaped, sizes_of, spatial, split_padding, vector
from onnxplain_convert.graph.shapes import const_array, dims, static_dims

RULES = RuleSet("convolution")


@RULES.rule("Conv")
def conv(b: Backward) -> Gradients:
    """y[n,m,o] = sum_{c,k} w[m,c,k] x[n,c, s o + d k - p]."""
    kernel, group = kernel_of(b.node, b.input(1)), b.attr("group", 1)
    windows = Windows.of(b.node, kernel, spatial(b.x, len(kernel)))
    gx = gw = gb = None
    if b.wants(0):
        gx = b.op.typed(transposed(b.op, b.g, b.input(1), windows, b.x, group), b.x)
    if b.wants(1):
        x = b.x
        if windows.begin is None:
            x, windows = padded(b.op, x, *windows.runtime_padding(b.op, x)), windows.without_padding()
        gw = weight_gradient(b.op, x, b.g, windows, b.input(1), group)
    if b.wants(2):
        gb = channel_sum(b.op, b.g, windows.rank)
    return gx, gw, gb


@RULES.rule("ConvTranspose")
def conv_transpose(b: Backward) -> Gradients:
    """y[n,m, s i + d k - p] += w[c,m,k] x[n,c,i]: with data and result exchanged, a convolution."""
    kernel, group = kernel_of(b.node, b.input(1)), b.attr("group", 1)
    windows = Windows.of_transposed(b.node, kernel, spatial(b.x, len(kernel)))
    g, gx, gw, gb = b.g, None, None, None
    if windows.begin is None:
        g, windows = padded(b.op, g, *_output_shape_padding(b, windows)), windows.without_padding()
    if b.wants(0):
        attributes = {"strides": list(windows.strides), "dilations": list(windows.dilations), "pads": windows.pads}
        gx = b.op.Conv(g, b.input(1), group=group, kernel_shape=list(kernel), **attributes)
        rests = windows.rest(spatial(g, windows.rank), spatial(b.x, windows.rank))
        known = b.attr("output_padding") or [0] * windows.rank if not b.attr("output_shape") else windows.strides
        rooms = [k if rest is None else rest for rest, k in zip(rests, known, strict=True)]
        if any(room >= stride for room, stride in zip(rooms, windows.strides, strict=True)):
            # more windows than there were elements: the node asked for room that no element reaches
            gx = crop(b.op, gx, [0] * windows.rank, b.x, windows.rank)
        gx = b.op.typed(gx, b.x)
    if b.wants(1):
        gw = weight_gradient(b.op, g, b.x, windows, b.input(1), group)
    if b.wants(2):
        gb = channel_sum(b.op, b.g, windows.rank)
    return gx, gw, gb


@RULES.rule("Col2Im")
def col2im(b: Backward) -> ir.Value:
    """The image's blocks taken apart again: a convolution with one kernel for every place in a block."""
    op, block = b.op, b.input(2)
    rank = (static_dims(block) or static_dims(b.input(1)) or (2,))[0]
    given = const_array(block)
    if given is not None:
        kernel = op.const(np.eye(given.prod()).reshape(-1, 1, *given), b.g.dtype)
    else:
        places = op.ReduceProd(block, keepdims=1)
        square = op.ConstantOfShape(op.Concat(places, places, axis=0))
        kernel = op.Reshape(op.EyeLike(square, dtype=b.g.dtype), vector(op, -1, 1, block))
    attributes = {name: b.attr(name) for name in ("strides", "dilations", "pads")}
    image = op.Reshape(b.g, vector(op, -1, 1, sizes_of(op, b.g, rank)))
    return op.reshape_like(op.Conv(image, kernel, **attributes), b.x)


def transposed(op: Emitter, g: ir.Value, w: ir.Value, windows: Windows, like: ir.Value, group: int = 1) -> ir.Value:
    """The gradient of a convolution in its data, which has the spatial sizes of ``like``.

    One ConvTranspose: padding that both sides have is its own, what one side has more is cropped (runtimes compute
    asymmetric pads and output_shape slowly or wrongly), elements that no window reached are its output_padding.
    """
    n = windows.rank
    begin, end = windows.begin or (0,) * n, windows.end or (0,) * n
    both = [min(p) for p in zip(begin, end, strict=True)]
    sizes = spatial(like, n)
    rests = windows.rest(sizes, spatial(g, n))
    extra, exact = [0] * n, windows.begin is not None
    for a in range(n):
        rest = 0 if windows.begin and windows.strides[a] == 1 else rests[a]
        behind = end[a] - both[a]
        if rest is None:
            extra[a], exact = windows.strides[a] - 1, False
        else:
            extra[a] = max(0, rest - behind)
            exact = exact and begin[a] == both[a] and behind <= rest
    gx = op.ConvTranspose(
        g,
        w,
        group=group,
        kernel_shape=list(windows.kernel),
        strides=list(windows.strides),
        dilations=list(windows.dilations),
        pads=both * 2,
        output_padding=extra if any(extra) else None,
    )
    if not exact:
        start = windows.runtime_padding(op, like)[0] if windows.begin is None else None
        gx = crop(op, gx, start or [p - q for p, q in zip(begin, both, strict=True)], like, n)
    return gx


def weight_gradient(op: Emitter, x: ir.Value, g: ir.Value, windows: Windows, w: ir.Value, group: int) -> ir.Value:
    """gw[m,c,k] = sum_{n,o} g[n,m,o] x[n,c, s o + d k - p].

    A convolution of x with kernel g over the batch, stride and dilation exchanged. ``windows`` with known padding.
    """
    if 0 in (dims(x) or ()):
        return op.zeros_like(w)  # a convolution over no channels, which ONNX Runtime does not come back from
    swap = [1, 0, *range(2, 2 + windows.rank)]
    data = op.Transpose(x, perm=swap) if group == 1 else _groups_into_batch(op, x, group, w, windows.rank)
    kernel = op.Transpose(g, perm=swap)
    gw = op.Conv(
        data,
        kernel,
        group=group,
        strides=list(windows.dilations),
        dilations=list(windows.strides),
        pads=windows.pads,
    )
    gw = op.Transpose(gw, perm=swap)
    rests = windows.rest(spatial(x, windows.rank), spatial(g, windows.rank))
    if any(r is None or r >= d for r, d in zip(rests, windows.dilations, strict=True)):
        gw = op.Slice(gw, [0] * windows.rank, list(windows.kernel), list(range(2, 2 + windows.rank)))
    return op.typed(gw, w)


def channel_sum(op: Emitter, g: ir.Value, rank: int) -> ir.Value:
    """(n, channels, *sizes) summed to (channels,): the gradient of a bias."""
    return op.ReduceSum(g, [0, *range(2, 2 + rank)], keepdims=0)


def crop(op: Emitter, x: ir.Value, start: ir.Value | list[int], like: ir.Value, rank: int) -> ir.Value:
    """The part of ``x`` (n, channels, *sizes) from ``start`` that has the spatial sizes of ``like``."""
    end = sizes_of(op, like, rank)
    known = [size for size in spatial(like, rank) if isinstance(size, int)]
    if not isinstance(start, ir.Value) and len(known) == rank:
        end = op.ints(*(s + k for s, k in zip(start, known, strict=True)))
    elif isinstance(start, ir.Value) or any(start):
        end = op.Add(end, start)
    return op.Slice(x, start, end, list(range(2, 2 + rank)))


def padded(op: Emitter, x: ir.Value, begin: ir.Value, end: ir.Value) -> ir.Value:
    """``x`` (n, channels, *sizes) with zeros around it, as many as two int64 vectors say."""
    keep = op.ints(0, 0)
    return op.Pad(x, op.Concat(keep, begin, keep, end, axis=0))


def _output_shape_padding(b: Backward, windows: Windows) -> tuple[ir.Value, ir.Value]:
    """What output_shape crops off the full result, where the input's sizes are known only at run time."""
    op, extra = b.op, b.attr("output_padding") or [0] * windows.rank
    reach = op.ints(*(e + x for e, x in zip(windows.extents, extra, strict=True)))
    full = op.Add(op.Mul(op.Sub(op.Shape(b.x, start=2), 1), op.ints(*windows.strides)), reach)
    wanted = op.ints(*b.attr("output_shape")[-windows.rank :])
    return split_padding(op, op.Max(op.Sub(full, wanted), 0), windows.same)


def _groups_into_batch(op: Emitter, x: ir.Value, group: int, w: ir.Value, rank: int) -> ir.Value:
    """(n, group * c, *sizes) as (c, group * n, *sizes); c is the second axis of the weight."""
    channels = (dims(w) or (None, None))[1]
    if not isinstance(channels, int):
        raise Unsupported(f"the gradient of a grouped convolution in its weight {w.name!r}: its channels are not known")
    flat = op.Transpose(reshaped(op, x, 0, group, channels, -1), perm=[2, 1, 0, 3])
    return op.Reshape(flat, vector(op, channels, -1, sizes_of(op, x, rank)))
