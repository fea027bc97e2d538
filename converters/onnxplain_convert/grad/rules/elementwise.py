"""Arithmetic on elements, with broadcasting (which the walk undoes)."""

from __future__ import annotations

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.ruleset import RuleSet

RULES = RuleSet("elementwise")


@RULES.rule("Add")
def add(b: Backward) -> Gradients:
    return b.g, b.g


@RULES.rule("Sub")
def sub(b: Backward) -> Gradients:
    return b.g, b.op.Neg(b.g) if b.wants(1) else None


@RULES.rule("Mul")
def mul(b: Backward) -> Gradients:
    x, y = b.input(0), b.input(1)
    return (b.op.Mul(b.g, y) if b.wants(0) else None, b.op.Mul(b.g, x) if b.wants(1) else None)


@RULES.rule("Div")
def div(b: Backward) -> Gradients:
    gx = b.op.Div(b.g, b.input(1))
    return gx, b.op.Neg(b.op.Mul(gx, b.y)) if b.wants(1) else None
