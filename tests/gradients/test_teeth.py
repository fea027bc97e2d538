"""The table of operator cases bites: a wrong formula, swapped inputs or a missing sum is caught, however small."""

from __future__ import annotations

import pytest

from onnxplain_convert.grad.rules import GRADIENT
from onnxplain_convert.grad.ruleset import Rule, RuleSet
from onnxplain_convert.graph.emitter import Emitter
from onnxplain_convert.relevance import RULE_SETS
from tests.gradients.cases import table
from tests.gradients.judge import judge

WRONG: dict[str, tuple[str, Rule]] = {
    "a wrong formula": ("Tanh", lambda b: b.op.Mul(b.g, b.op.Sub(1.0, b.y))),
    "the formula of another function": ("LeakyRelu", lambda b: b.g),
    "off by a ten thousandth": ("Exp", lambda b: b.op.Mul(b.op.Mul(b.g, b.y), 1.0001)),
    "a term too few": ("Softmax", lambda b: b.op.Mul(b.g, b.y)),
    "a sign": ("Sub", lambda b: (b.g, b.g)),
    "swapped inputs, same shape": ("Mul", lambda b: (b.op.Mul(b.g, b.x), b.op.Mul(b.g, b.input(1)))),
    "swapped inputs, another shape": ("MatMul", lambda b: tuple(reversed(b.vjp()))),
    "one input left out": ("Div", lambda b: (b.op.Div(b.g, b.input(1)), None)),
    "the permutation in place of its inverse": ("Transpose", lambda b: b.op.Transpose(b.g, perm=b.attr("perm"))),
    "a stretch where zeros belong": ("Slice", lambda b: b.op.expand_like(b.op.ReduceSum(b.g, keepdims=1), b.x)),
}


def problems(operator: str, rules: str) -> list[str]:
    return [problem for case in table(None).cases[operator] for _, problem in [judge(case, rules)] if problem]


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_rule_is_caught(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, rule = WRONG[what]
    wrong = RuleSet("wrong", parent=GRADIENT)
    wrong.rule(operator)(rule)
    monkeypatch.setitem(RULE_SETS, "wrong", wrong)
    assert problems(operator, "wrong")
    assert not problems(operator, "gradient"), "the right rule fails as well: nothing is shown"


def test_a_missing_sum_to_shape_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Emitter, "sum_to", lambda emitter, g, like: g)
    assert problems("Add", "gradient")


def test_a_rule_that_sees_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zero gradient is the quietest mistake there is."""
    silent = RuleSet("silent", parent=GRADIENT)
    silent.rule("Sigmoid")(lambda b: b.op.zeros_like(b.x))
    monkeypatch.setitem(RULE_SETS, "silent", silent)
    assert all(judge(case, "silent")[0] == "wrong" for case in table(None).cases["Sigmoid"])
