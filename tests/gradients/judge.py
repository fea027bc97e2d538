"""What becomes of one operator case: differentiated, compared in float64, and run in ONNX Runtime."""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto
from onnx.utils import Extractor

from onnxplain.artifact import gradient_name
from onnxplain.errors import Unsupported
from onnxplain_convert import differentiate
from tests.gradients.cases import Case
from tests.gradients.check import check, random_seeds
from tests.gradients.runtime import NoKernel, differences_in_onnxruntime, run_onnxruntime


def judge(case: Case, rules: str = "gradient", known: Case | None = None) -> tuple[str, str]:
    """How the case is counted, and what is wrong with it, if anything.

    ``known``: the same case at another opset, judged before; where it has the same graph nothing is run again.
    """
    try:
        differentiated = differentiate(case.model, wrt=case.wrt, outputs=case.outputs, rules=(rules,))
    except Unsupported as error:
        return "refused", f"refused: {error}"
    except Exception as error:  # the other cases are still worth knowing
        return "crashed", f"differentiate: {error!r}"
    if known and is_same(differentiated, differentiate(known.model, wrt=known.wrt, outputs=known.outputs)):
        return "the same graph as at the newest opset", ""
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


def is_same(a: ModelProto, b: ModelProto) -> bool:
    """The same graph, of operators that have the same inputs and attributes at both opsets."""
    if a.graph != b.graph:
        return False
    one, other = a.opset_import[0].version, b.opset_import[0].version
    return one == other or all(form(name, one) == form(name, other) for name in operators(a.graph))


def operators(graph: GraphProto) -> set[str]:
    """The types of all nodes, those of subgraphs included."""
    inner = [operators(attribute.g) for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    return {node.op_type for node in graph.node}.union(*inner)


def form(operator: str, opset: int) -> tuple[list[str], list[str]]:
    """Names of inputs and attributes: what a new version changes that does not only add types."""
    schema = onnx.defs.get_schema(operator, opset)
    return [i.name for i in schema.inputs], sorted(schema.attributes)


def runs_forward(differentiated: ModelProto, case: Case) -> bool:
    forward = Extractor(differentiated).extract_model(list(case.feeds), list(case.outputs))
    try:
        run_onnxruntime(forward, case.feeds, case.outputs)
    except NoKernel:
        return False
    return True
