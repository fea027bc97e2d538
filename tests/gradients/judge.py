"""What becomes of one operator case: differentiated, compared in float64, and run in ONNX Runtime."""

from __future__ import annotations

from onnx import ModelProto
from onnx.utils import Extractor

from onnxplain.artifact import gradient_name
from onnxplain.errors import Unsupported
from onnxplain_convert import differentiate
from tests.gradients.cases import Case
from tests.gradients.check import check, random_seeds
from tests.gradients.runtime import NoKernel, differences_in_onnxruntime, run_onnxruntime

REFUSED: dict[str, str] = {}
"""Cases that are refused because they have no derivative worth having, with the reason."""


def judge(case: Case, rules: str = "gradient") -> tuple[str, str]:
    """How the case is counted, and what is wrong with it, if anything."""
    try:
        differentiated = differentiate(case.model, wrt=case.wrt, outputs=case.outputs, rules=(rules,))
    except Unsupported as error:
        return ("refused on purpose", "") if case.name in REFUSED else ("refused", f"refused: {error}")
    except Exception as error:  # the other cases are still worth knowing
        return "crashed", f"differentiate: {error!r}"
    seeds = random_seeds(case.model, case.feeds, case.outputs)
    try:
        verdict = check(case.model, differentiated, case.feeds, seeds, case.wrt, case.outputs, rules)
    except Exception as error:
        return "crashed", f"not a graph that can be evaluated: {error!r}"
    if verdict.wrong:
        return "wrong", f"wrong gradient: {verdict.wrong}"
    if len(verdict.kinks) == len(case.wrt):
        return "not differentiable at that point, nor near it", ""
    outcome = "right, the point moved off a kink" if verdict.moved else "right"
    try:
        names = [gradient_name(rules, name) for name in case.wrt]
        different = differences_in_onnxruntime(differentiated, {**case.feeds, **seeds}, [*case.outputs, *names])
    except NoKernel as error:
        if runs_forward(differentiated, case):
            return "no kernel", f"ONNX Runtime runs the forward pass, not the gradient: {error}"
        return f"{outcome}; ONNX Runtime cannot run its forward pass", ""
    if not different.keys().isdisjoint(case.outputs):
        return f"{outcome}; ONNX Runtime's forward pass differs from onnx's", ""
    return ("wrong in ONNX Runtime", f"in ONNX Runtime: {different}") if different else (outcome, "")


def runs_forward(differentiated: ModelProto, case: Case) -> bool:
    forward = Extractor(differentiated).extract_model(list(case.feeds), list(case.outputs))
    try:
        run_onnxruntime(forward, case.feeds, case.outputs)
    except NoKernel:
        return False
    return True
