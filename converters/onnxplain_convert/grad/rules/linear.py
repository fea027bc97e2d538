"""Matrix products. They are bilinear: the gradient of each operand is a product of ``g`` with the other."""

from __future__ import annotations

from string import ascii_letters

import numpy as np
import onnx_ir as ir

from onnxplain.errors import Unsupported
from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.graph.shapes import dims

RULES = RuleSet("linear")


@RULES.rule("Gemm")
def gemm(b: Backward) -> Gradients:
    """Y = alpha A' B' + beta C."""
    a, w, g = b.input(0), b.input(1), b.g
    alpha, beta = b.attr("alpha", 1.0), b.attr("beta", 1.0)
    trans_a, trans_b = b.attr("transA", 0), b.attr("transB", 0)
    ga = gw = gc = None
    if b.wants(0) and trans_a:
        ga = b.op.Gemm(w, g, alpha=alpha, transA=trans_b, transB=1)
    elif b.wants(0):
        ga = b.op.Gemm(g, w, alpha=alpha, transB=1 - trans_b)
    if b.wants(1) and trans_b:
        gw = b.op.Gemm(g, a, alpha=alpha, transA=1, transB=trans_a)
    elif b.wants(1):
        gw = b.op.Gemm(a, g, alpha=alpha, transA=1 - trans_a)
    if b.wants(2):
        gc = g if beta == 1.0 else b.op.Mul(g, float(beta))
    return ga, gw, gc


@RULES.rule("MatMul")
def matmul(b: Backward) -> Gradients:
    """numpy.matmul: batch axes broadcast (the walk sums them back); vectors stand for a row or a column."""
    x, w, g = b.input(0), b.input(1), b.g
    if dims(x) is None or dims(w) is None:  # matrices, or this fails when it runs
        return b.op.Einsum(g, w, equation="...ik,...jk->...ij"), b.op.Einsum(x, g, equation="...ji,...jk->...ik")
    x_rank, w_rank = b.rank(x), b.rank(w)
    if x_rank == 1:
        x = b.op.Unsqueeze(x, [0])
        g = b.op.Unsqueeze(g, [-1] if w_rank == 1 else [-2])
    if w_rank == 1:
        w = b.op.Unsqueeze(w, [1])
        g = b.op.Unsqueeze(g, [-1])
    gx = gw = None
    if b.wants(0):
        gx = b.op.MatMul(g, _transposed(b, w))
        gx = b.op.Squeeze(gx, [-2]) if x_rank == 1 else gx
    if b.wants(1):
        gw = b.op.MatMul(_transposed(b, x), g)
        gw = b.op.Squeeze(gw, [-1]) if w_rank == 1 else gw
    return gx, gw


def _transposed(b: Backward, value: ir.Value) -> ir.Value:
    perm = list(range(len(dims(value) or ())))
    perm[-1], perm[-2] = perm[-2], perm[-1]
    return b.op.Transpose(value, perm=perm)


@RULES.rule("Einsum")
def einsum(b: Backward) -> Gradients:
    """The gradient of one operand is the einsum of ``g`` with the others, to that operand's own letters.

    Letters that only this operand has were summed away: they come back by broadcasting. A letter that stands twice in
    one operand took a diagonal: the gradient is put back on it by a product with the identity matrix.
    """
    terms, result = _equation(b)
    return tuple(_einsum_operand(b, terms, result, i) if b.wants(i) else None for i in range(len(terms)))


def _equation(b: Backward) -> tuple[list[str], str]:
    """The equation's operands and result, every ellipsis spelled out in letters of its own (right-aligned)."""
    left, arrow, result = b.attr("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # implicit: the letters that stand once, in alphabetical order, behind the ellipsis
        letters = [c for c in left if c.isalpha()]
        result = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    widths = [b.rank(b.input(i)) - len(t.replace("...", "")) if "..." in t else 0 for i, t in enumerate(terms)]
    dots = "".join([c for c in ascii_letters if c not in left][: max(widths)])
    terms = [t.replace("...", dots[len(dots) - w :]) for t, w in zip(terms, widths, strict=True)]
    return terms, result.replace("...", dots)


def _einsum_operand(b: Backward, terms: list[str], result: str, index: int) -> ir.Value:
    term, x = terms[index], b.input(index)
    others = [(t, b.input(i)) for i, t in enumerate(terms) if i != index]
    seen = result + "".join(t for t, _ in others)
    unique = "".join(dict.fromkeys(term))
    equation = ",".join([result, *(t for t, _ in others)]) + "->" + "".join(c for c in unique if c in seen)
    g = b.op.Einsum(b.g, *(v for _, v in others), equation=equation)
    summed_away = [k for k, c in enumerate(unique) if c not in seen]
    if summed_away:
        g = b.op.Unsqueeze(g, summed_away)
    if unique == term:
        return b.op.sum_to(g, x)
    sizes = [b.op.dim(x, term.index(c)) for c in unique]
    g = b.op.Expand(g, b.op.Concat(*sizes, axis=0))
    fresh = iter(c for c in ascii_letters if c not in term)
    places, diagonals = list(term), []
    for k, c in enumerate(term):
        if c in term[:k]:
            places[k] = next(fresh)
            size = sizes[unique.index(c)]
            square = b.op.ConstantOfShape(b.op.Concat(size, size, axis=0))
            diagonals.append((c + places[k], b.op.EyeLike(square, dtype=x.dtype)))
    equation = ",".join([unique, *(t for t, _ in diagonals)]) + "->" + "".join(places)
    return b.op.Einsum(g, *(v for _, v in diagonals), equation=equation)


@RULES.rule("Det")
def det(b: Backward) -> ir.Value:
    """g times the transposed adjugate, by Faddeev and LeVerrier's recursion: right for singular matrices too.

    M_1 = 1, M_(k+1) = A M_k + c_k 1 with c_k = -tr(A M_k) / k; the adjugate is (-1)^(n-1) M_n.
    """
    op, a = b.op, b.x
    n = (dims(a) or (None,))[-1]
    if not isinstance(n, int):
        raise Unsupported(f"Det {b.node.name!r} (opset {b.opset}): the size of the matrix is not known, only {dims(a)}")
    eye = op.const(np.eye(n), a.dtype)
    m = op.expand_like(eye, a)
    for k in range(1, n):
        am = op.MatMul(a, m)
        trace = op.ReduceSum(op.Mul(am, eye), [-2, -1], keepdims=1)
        m = op.Add(am, op.Mul(eye, op.Mul(trace, -1.0 / k)))
    g = op.Unsqueeze(b.g, [-2, -1])
    return op.Mul(g, op.Mul(_transposed(b, m), float((-1) ** (n - 1))))


@RULES.rule("AffineGrid")
def affine_grid(b: Backward) -> ir.Value:
    """grid = (coordinates, 1) theta', coordinates in [-1, 1], of pixel centres or (align_corners) of the corners."""
    op, space = b.op, (dims(b.x) or (None, None))[1]
    if not isinstance(space, int):
        raise Unsupported(f"AffineGrid {b.node.name!r} (opset {b.opset}): theta must be (N, 2, 3) or (N, 3, 4)")
    corners = b.attr("align_corners", 0)
    ones = op.Expand(op.const(1.0, b.g.dtype), op.Slice(b.input(1), [2], [2 + space]))
    axes = []
    for k in reversed(range(space)):  # x runs along the last axis
        size = op.Cast(op.Gather(b.input(1), [2 + k]), to=b.g.dtype)
        scalar = op.Squeeze(op.Gather(b.input(1), [2 + k]), [0])
        steps = op.Cast(op.Range(op.const(np.int64(0)), scalar, op.const(np.int64(1))), to=b.g.dtype)
        if corners:
            line = op.Sub(op.Div(op.Mul(steps, 2.0), op.Max(op.Sub(size, 1.0), 1.0)), 1.0)
        else:
            line = op.Sub(op.Div(op.Add(op.Mul(steps, 2.0), 1.0), size), 1.0)
        axes.append(
            op.Mul(ones, op.Unsqueeze(line, list(range(1, space - k)))) if k < space - 1 else op.Mul(ones, line)
        )
    columns = [op.Reshape(v, [-1, 1]) for v in (*axes, ones)]
    points = op.Concat(*columns, axis=1)
    return op.MatMul(op.Transpose(op.Reshape(b.g, [0, -1, space]), perm=[0, 2, 1]), points)
