"""Reductions over axes. What is reduced away comes back by broadcasting; equal maxima share (torch.amax)."""

from __future__ import annotations

import onnx_ir as ir

from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import const_array, dims, static_dims

RULES = RuleSet("reductions")


@RULES.rule("ReduceSum")
def reduce_sum(b: Backward) -> ir.Value:
    return b.op.spread(_kept(b, b.g), b.x)


@RULES.rule("ReduceMean")
def reduce_mean(b: Backward) -> ir.Value:
    x, y = static_dims(b.x), static_dims(b.y)
    reduced = _reduced_sizes(b)
    if reduced is not None:
        count = b.op.const(float(reduced), b.g.dtype)
    elif x is not None and y is not None:
        count = b.op.const(float(_product(x) // max(_product(y), 1)), b.g.dtype)
    else:
        count = b.op.Cast(b.op.Div(b.op.Size(b.x), b.op.Size(b.y)), to=b.g.dtype)
    return b.op.spread(_kept(b, b.op.Div(b.g, count)), b.x)


@RULES.rule("ReduceMax", "ReduceMin")
def reduce_extremum(b: Backward) -> ir.Value:
    hit = b.op.Cast(b.op.Equal(b.x, _kept(b, b.y)), to=b.g.dtype)
    count = b.op.ReduceSum(hit, *_axes(b), keepdims=1, noop_with_empty_axes=_noop(b))
    return b.op.Mul(hit, b.op.Div(_kept(b, b.g), count))


@RULES.rule("ReduceProd")
def reduce_prod(b: Backward) -> ir.Value:
    """The product of the others: right also where one factor is zero, or several."""
    op, one, zero = b.op, b.op.const(1.0, b.g.dtype), b.op.const(0.0, b.g.dtype)
    is_zero = op.Equal(b.x, zero)
    factors = op.Where(is_zero, one, b.x)
    product = op.ReduceProd(factors, *_axes(b), keepdims=1, noop_with_empty_axes=_noop(b))
    zeros = op.ReduceSum(op.Cast(is_zero, to=b.g.dtype), *_axes(b), keepdims=1, noop_with_empty_axes=_noop(b))
    at_zero = op.Where(op.Equal(zeros, one), product, zero)
    elsewhere = op.Where(op.Equal(zeros, zero), op.Div(product, factors), zero)
    return op.Mul(_kept(b, b.g), op.Where(is_zero, at_zero, elsewhere))


@RULES.rule("ReduceL1")
def reduce_l1(b: Backward) -> ir.Value:
    return b.op.Mul(_kept(b, b.g), b.op.Sign(b.x))


@RULES.rule("ReduceL2")
def reduce_l2(b: Backward) -> ir.Value:
    """x / |x|; 0 at the origin, as PyTorch's norm."""
    norm, zero = _kept(b, b.y), b.op.const(0.0, b.g.dtype)
    at_origin = b.op.Equal(norm, zero)
    safe = b.op.Where(at_origin, b.op.const(1.0, b.g.dtype), norm)
    return b.op.Mul(b.op.Where(at_origin, zero, b.op.Div(_kept(b, b.g), safe)), b.x)


@RULES.rule("ReduceSumSquare")
def reduce_sum_square(b: Backward) -> ir.Value:
    return b.op.Mul(b.op.Mul(_kept(b, b.g), 2.0), b.x)


@RULES.rule("ReduceLogSum")
def reduce_log_sum(b: Backward) -> ir.Value:
    total = b.op.ReduceSum(b.x, *_axes(b), keepdims=1, noop_with_empty_axes=_noop(b))
    return b.op.spread(b.op.Div(_kept(b, b.g), total), b.x)


@RULES.rule("ReduceLogSumExp")
def reduce_log_sum_exp(b: Backward) -> ir.Value:
    return b.op.Mul(_kept(b, b.g), b.op.Exp(b.op.Sub(b.x, _kept(b, b.y))))


@RULES.rule("CumSum")
def cum_sum(b: Backward) -> ir.Value:
    reverse, exclusive = b.attr("reverse", 0), b.attr("exclusive", 0)
    return b.op.CumSum(b.g, b.input(1), reverse=1 - reverse, exclusive=exclusive)


def _noop(b: Backward) -> int:
    return int(b.attr("noop_with_empty_axes", 0))


def _axes(b: Backward) -> tuple[ir.Value, ...]:
    return (b.input(1),) if b.has(1) else ()


def _kept(b: Backward, reduced: ir.Value) -> ir.Value:
    """A tensor of the output's shape with the reduced axes back in place, of length one."""
    if b.attr("keepdims", 1):
        return reduced
    axes = const_array(b.inputs[1]) if b.has(1) else None
    if axes is not None and axes.size:
        return b.op.Unsqueeze(reduced, b.input(1))
    if not b.has(1) or axes is not None:
        if _noop(b):
            return reduced
        rank = len(dims(b.x) or ())
        return b.op.Reshape(reduced, [1] * rank) if b.x.shape is not None else reduced
    kept = b.op.ReduceSum(b.x, b.input(1), keepdims=1, noop_with_empty_axes=_noop(b))
    return b.op.Reshape(reduced, b.op.Shape(kept), allowzero=1)


def _reduced_sizes(b: Backward) -> int | None:
    """How many elements one result is made of, where that is known without knowing the whole shape."""
    shape = dims(b.x)
    axes = const_array(b.inputs[1]) if b.has(1) else None
    if shape is None or axes is None or not axes.size:
        return None
    sizes = [shape[int(a)] for a in axes.ravel()]
    known = [s for s in sizes if isinstance(s, int)]
    return _product(known) if len(known) == len(sizes) else None


def _product(sizes: tuple[int, ...] | list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
