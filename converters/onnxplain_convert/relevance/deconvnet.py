"""DeconvNet (Zeiler & Fergus 2014): at a gate the signal going back is rectified, whatever the forward pass did."""

from __future__ import annotations

from onnxplain_convert.grad.backward import Backward, Gradients
from onnxplain_convert.grad.rules import GRADIENT
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.relevance.gates import ACTIVATIONS, SPELLINGS, gated

DECONVNET = RuleSet("deconvnet", parent=GRADIENT)


@DECONVNET.rule(*ACTIVATIONS, *SPELLINGS)
def deconvnet(b: Backward) -> Gradients:
    """1[g > 0] * g."""
    index = gated(b.node)
    if index is None:
        return b.vjp()
    signal = b.op.Relu(b.g)
    return tuple(signal if i == index else None for i in range(len(b.inputs)))
