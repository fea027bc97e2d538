"""Fourier transforms: linear, so the gradient is the adjoint. Windows and filter banks are tables of integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.graph.shapes import const_array, dims

RULES = RuleSet("signal")

RULES.has_no_gradient(
    "its result is a table made of integers; the edges of a filter bank are rounded to bins",
    "HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix",
)  # fmt: skip


@RULES.rule("DFT")
def dft(b: Backward) -> ir.Value:
    """Forward sum_j x_j e^(-2 pi i j k / L): the adjoint is L times the inverse transform, and the other way round.

    What a one-sided result leaves out is zero; cropping or padding to L is undone; a real input takes the real part.
    """
    op = b.op
    shape, axis = dims(b.x), _dft_axis(b)
    if shape is None:
        raise Unsupported(f"DFT {b.node.name!r} (opset {b.opset}): the rank of {b.x.name!r} is not known")
    own = _size(op, b.x, axis)
    length = op.Cast(op.Reshape(b.input(1), [1]), to=ir.DataType.INT64) if b.has(1) else own
    g, inverse = b.g, int(b.attr("inverse", 0))
    if b.attr("onesided", 0) and inverse:
        return _real_inverse(b, axis)
    if b.attr("onesided", 0):
        g = _extended(op, g, op.Sub(length, _size(op, g, axis)), axis)
    g = transform(op, g, axis, inverse=1 - inverse)
    factor = op.Cast(length, to=g.dtype)
    g = op.Div(g, factor) if inverse else op.Mul(g, factor)
    if b.has(1):
        g = _extended(op, op.Slice(g, [0], own, axis), op.Max(op.Sub(own, length), [0]), axis)
    return g if shape[-1] == 2 else op.Slice(g, [0], [1], [-1])


def _real_inverse(b: Backward, axis: ir.Value) -> ir.Value:
    """x_j = sum_k c_k Re(X_k e^(2 pi i j k / L)) / L, c = 2 but for the constant and the Nyquist frequency: 1."""
    op = b.op
    length, count = _size(op, b.g, axis), _size(op, b.x, axis)
    g = transform(op, b.g, axis, onesided=1)
    found = _size(op, g, axis)
    last = op.Add(op.Sub(found, [1]), op.Mod(length, [2]))
    once = op.Slice(g, [0], [1], axis)
    alone = op.Slice(g, last, found, axis)
    g = op.Sub(op.Mul(g, 2.0), _extended(op, once, op.Sub(found, [1]), axis))
    g = op.Sub(g, op.Pad(alone, op.Concat(last, op.ints(0), axis=0), None, axis))
    g = op.Div(g, op.Cast(length, to=g.dtype))
    return _extended(op, op.Slice(g, [0], count, axis), op.Max(op.Sub(count, found), [0]), axis)


def transform(op: Emitter, x: ir.Value, axis: ir.Value, *, inverse: int = 0, onesided: int = 0) -> ir.Value:
    """DFT along an axis (int64, length one), which is an input from opset 20 on and an attribute before."""
    if op.opset >= 20:
        return op.DFT(x, None, op.Squeeze(axis, [0]), inverse=inverse, onesided=onesided)
    constant = const_array(axis)
    assert constant is not None, "the axis was an attribute. This is a bug."
    return op.DFT(x, axis=int(constant[0]), inverse=inverse, onesided=onesided)


def _dft_axis(b: Backward) -> ir.Value:
    if b.opset < 20:
        return b.op.ints(int(b.attr("axis", 1)))
    if not b.has(2):
        return b.op.ints(-2)
    axis = const_array(b.input(2))
    return b.op.Reshape(b.input(2), [1]) if axis is None else b.op.ints(int(axis.ravel()[0]))


def _size(op: Emitter, x: ir.Value, axis: ir.Value) -> ir.Value:
    constant = const_array(axis)
    return op.Gather(op.Shape(x), axis) if constant is None else op.dim(x, int(constant[0]))


def _extended(op: Emitter, x: ir.Value, by: ir.Value, axis: ir.Value) -> ir.Value:
    """Zeros behind ``x`` along an axis."""
    return op.Pad(x, op.Concat(op.ints(0), by, axis=0), None, axis)


@RULES.rule("STFT")
def stft(b: Backward) -> Gradients:
    """Frames gathered from the signal (batch, length, 1 or 2), times the window, transformed."""
    op = b.op
    scalar = op.const(np.zeros(0, np.int64))
    step = op.Cast(op.Reshape(b.input(1), scalar), to=ir.DataType.INT64)
    window = b.input(2) if b.has(2) else None
    width = op.dim(window, 0) if window is not None else op.Cast(b.input(3), to=ir.DataType.INT64)
    width = op.Reshape(width, scalar)
    length = op.Reshape(op.dim(b.x, 1), scalar)
    zero, one = op.const(np.int64(0)), op.const(np.int64(1))
    count = op.Add(op.Div(op.Sub(length, width), step), one)
    starts = op.Mul(op.Range(zero, count, one), step)
    places = op.Add(op.Unsqueeze(starts, [1]), op.Unsqueeze(op.Range(zero, width, one), [0]))
    frames = op.Gather(b.x, places, axis=1)
    if window is not None:
        frames = op.Mul(frames, op.Unsqueeze(window, [1]))
    return b.through(transform(op, frames, op.ints(2), onesided=int(b.attr("onesided", 1))))
