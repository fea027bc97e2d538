"""Matrix products."""

from __future__ import annotations

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet

RULES = RuleSet("linear")


@RULES.rule("Gemm")
def gemm(b: Backward) -> Gradients:
    """Y = alpha A' B' + beta C."""
    a, w, g = b.input(0), b.input(1), b.g
    alpha, beta = b.attr("alpha", 1.0), b.attr("beta", 1.0)
    trans_a, trans_b = b.attr("transA", 0), b.attr("transB", 0)
    ga = gw = gc = None
    if b.wants(0):
        ga = (
            b.op.Gemm(w, g, alpha=alpha, transA=trans_b, transB=1)
            if trans_a
            else b.op.Gemm(g, w, alpha=alpha, transB=1 - trans_b)
        )
    if b.wants(1):
        gw = (
            b.op.Gemm(g, a, alpha=alpha, transA=1, transB=trans_a)
            if trans_b
            else b.op.Gemm(a, g, alpha=alpha, transA=1 - trans_a)
        )
    if b.wants(2):
        gc = g if beta == 1.0 else b.op.Mul(g, float(beta))
    return ga, gw, gc
