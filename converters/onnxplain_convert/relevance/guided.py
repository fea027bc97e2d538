"""Guided backpropagation (Springenberg et al. 2015): only positive signals pass a gate, and only where it is open.

At an activation f the gradient is 1[x > 0] * 1[g > 0] * f'(x) * g. Residual additions, normalisation and everything
else are differentiated as they stand.
"""

from __future__ import annotations

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.rules import GRADIENT
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.relevance.gates import ACTIVATIONS, SPELLINGS, gated

GUIDED = RuleSet("guided", parent=GRADIENT)


@GUIDED.rule(*ACTIVATIONS, *SPELLINGS)
def guided(b: Backward) -> Gradients:
    """1[x > 0] * 1[g > 0] * f'(x) * g."""
    index = gated(b.node)
    if index is None:
        return b.vjp()
    is_open = b.op.Greater(b.input(index), b.op.const(0.0, b.g.dtype))
    passed = b.vjp(g=b.op.Where(is_open, b.op.Relu(b.g), b.op.const(0.0, b.g.dtype)))
    return tuple(g if i == index else None for i, g in enumerate(passed))
