"""Every gradient of ONNX's own operator cases is right: in float64 against differences, and in ONNX Runtime.

One test per operator and opset. What is left out is left out for a named reason, and the number of each is printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from onnx import ModelProto
from onnx.utils import Extractor

from onnxplain.artifact import gradient_name
from onnxplain.errors import Unsupported
from onnxplain_convert import differentiate
from tests.gradients.cases import EXPANDED, OPERATORS, Case, table
from tests.gradients.check import NoKernel, check, differences_in_onnxruntime, random_seeds, run_onnxruntime
from tests.gradients.conftest import Report

OPSETS = {"newest": None, "opset21": 21}

REFUSED: dict[str, str] = {}
"""Cases that are refused because they have no derivative worth having, with the reason."""


@pytest.fixture(scope="module")
def counts(report: Report) -> Iterator[dict[str, Counter[str]]]:
    """How many cases ended how, per opset: printed when the run is done."""
    found: dict[str, Counter[str]] = {opset: Counter() for opset in OPSETS}
    yield found
    for opset, counter in found.items():
        counter.update(table(OPSETS[opset]).excluded.values())
        for what, n in counter.most_common():
            report(f"gradients of ONNX's operator cases, {opset}", f"{n:5} {what}")


@pytest.mark.parametrize("operator", [*OPERATORS, EXPANDED])
@pytest.mark.parametrize("opset", OPSETS)
def test_gradient(opset: str, operator: str, counts: dict[str, Counter[str]]) -> None:
    cases = table(OPSETS[opset]).cases[operator]
    problems = []
    for case in cases:
        outcome, problem = judge(case)
        counts[opset][outcome] += 1
        if problem:
            problems.append(f"{case.name}: {problem}")
    assert cases, "onnx has no case for this operator"
    assert not problems, "\n".join(["", *problems])


def judge(case: Case) -> tuple[str, str]:
    """What became of a case, as it is counted, and what is wrong with it, if anything."""
    try:
        differentiated = differentiate(case.model, wrt=case.wrt, outputs=case.outputs)
    except Unsupported as error:
        return ("refused on purpose", "") if case.name in REFUSED else ("refused", f"refused: {error}")
    except Exception as error:  # the other cases are still worth knowing
        return "crashed", f"differentiate: {error!r}"
    seeds = random_seeds(case.model, case.feeds, case.outputs)
    try:
        verdict = check(case.model, differentiated, case.feeds, seeds, case.wrt, case.outputs)
    except Exception as error:
        return "crashed", f"not a graph that can be evaluated: {error!r}"
    if verdict.wrong:
        return "wrong", f"wrong gradient: {verdict.wrong}"
    if len(verdict.kinks) == len(case.wrt):
        return "not differentiable at that point, nor near it", ""
    outcome = "right, the point moved off a kink" if verdict.moved else "right"
    try:
        names = [gradient_name("gradient", name) for name in case.wrt]
        different = differences_in_onnxruntime(differentiated, {**case.feeds, **seeds}, names)
    except NoKernel as error:
        if runs_forward(differentiated, case):
            return "no kernel", f"ONNX Runtime runs the forward pass, not the gradient: {error}"
        return f"{outcome}; ONNX Runtime cannot run its forward pass", ""
    return ("wrong in ONNX Runtime", f"in ONNX Runtime: {different}") if different else (outcome, "")


def runs_forward(differentiated: ModelProto, case: Case) -> bool:
    forward = Extractor(differentiated).extract_model(list(case.feeds), list(case.outputs))
    try:
        run_onnxruntime(forward, case.feeds, case.outputs)
    except NoKernel:
        return False
    return True
