"""Every gradient of ONNX's own operator cases is right: in float64 against differences, and in ONNX Runtime.

One test per operator and opset. What is left out is left out for a named reason, and the number of each is printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.gradients.cases import COVERED, ELSEWHERE, EXPANDED, NOTHING, OPERATORS, RANDOM, table
from tests.gradients.conftest import Report
from tests.gradients.judge import judge

OPSETS = {"newest": None, "opset21": 21}


@pytest.fixture(scope="module")
def counts(report: Report) -> Iterator[dict[str, Counter[str]]]:
    """How many cases ended how, per opset: printed when the run is done."""
    found: dict[str, Counter[str]] = {opset: Counter() for opset in OPSETS}
    yield found
    for opset, counter in found.items():
        counter.update(table(OPSETS[opset]).excluded.values())
        for what, n in counter.most_common():
            report(f"gradients of ONNX's operator cases, {opset}", f"{n:5} {what}")


def test_every_operator_is_accounted_for() -> None:
    cases = table(None).cases
    assert {name for name in OPERATORS if not cases[name]} == NOTHING | ELSEWHERE | RANDOM


@pytest.mark.parametrize("operator", [*COVERED, EXPANDED])
@pytest.mark.parametrize("opset", OPSETS)
def test_gradient(opset: str, operator: str, counts: dict[str, Counter[str]]) -> None:
    newest = {case.name: case for case in table(None).cases[operator]}
    problems = []
    for case in table(OPSETS[opset]).cases[operator]:
        outcome, problem = judge(case, known=None if opset == "newest" else newest[case.name])
        counts[opset][outcome] += 1
        if problem:
            problems.append(f"{case.name}: {problem}")
    assert newest, "onnx has no case for this operator"
    assert not problems, "\n".join(["", *problems])
