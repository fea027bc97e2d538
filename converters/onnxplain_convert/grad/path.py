"""Which nodes lie between what is differentiated and what is explained, and whether each has a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxplain.errors import Unsupported, nearest
from onnxplain_convert.grad.ruleset import QUANTISERS, RuleSet
from onnxplain_convert.graph.shapes import is_float, reads


@dataclass(frozen=True)
class Path:
    """The nodes that gradients go back through, in execution order."""

    nodes: list[ir.Node]
    active: set[ir.Value]
    """Values that depend differentiably on what is differentiated."""
    useful: set[ir.Value]
    """Values that the explained outputs depend on differentiably."""
    constant: list[ir.Node]

    @classmethod
    def find(
        cls, nodes: list[ir.Node], sources: list[ir.Value], explained: list[ir.Value], rules: RuleSet, opset: int
    ) -> Path:
        active, constant = set(sources), []
        for node in nodes:
            if active.isdisjoint(reads(node)):
                continue
            if rules.why_none(node) is None:
                active.update(v for v in node.outputs if is_float(v) or carries_codes(node, v, active))
            if is_piecewise_constant(node) and active.isdisjoint(node.outputs):
                constant.append(node)
        useful: set[ir.Value] = set(explained)
        path: list[ir.Node] = []
        reached: set[ir.Value] = set(explained)
        for node in reversed(nodes):
            if reached.isdisjoint(node.outputs):
                continue
            reached.update(reads(node))
            if useful.isdisjoint(node.outputs) or active.isdisjoint(node.outputs):
                continue
            useful.update(v for v in reads(node) if v in active)
            path.append(node)
        path = [n for n in reversed(path) if not active.isdisjoint(reads(n))]
        constant = [n for n in constant if not reached.isdisjoint(n.outputs)]
        for node in path:
            if rules.state(node, opset) == "missing":
                raise missing(node, rules, opset, path)
        return cls(path, active, useful, constant)


def between(sources: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes that compute ``outputs`` from ``sources`` (and from what came before), in execution order."""
    order: dict[ir.Node, None] = {}
    stack: list[tuple[ir.Node, bool]] = [(n, False) for v in outputs if v not in sources and (n := v.producer())]
    while stack:
        node, ready = stack.pop()
        if ready:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            stack += [(n, False) for v in reads(node) if v not in sources and (n := v.producer()) and n not in order]
    return list(order)


def carries_codes(node: ir.Node, value: ir.Value, active: set[ir.Value]) -> bool:
    """Is this integer result a quantised number: out of a quantisation, or computed from such?"""
    if value.dtype is None or value.dtype == ir.DataType.BOOL:
        return False
    if node.op_type in QUANTISERS:
        return value is node.outputs[0]
    return any(v in active and not is_float(v) for v in node.inputs if v is not None)


def is_piecewise_constant(node: ir.Node) -> bool:
    """As against Shape and its like, which do not look at the values at all."""
    return node.op_type not in {"Shape", "Size", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike"}


def missing(node: ir.Node, rules: RuleSet, opset: int, path: list[ir.Node]) -> Unsupported:
    """The error for a node without a rule."""
    full = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    count = sum((n.domain, n.op_type) == (node.domain, node.op_type) for n in path)
    return Unsupported(
        f"{full} {node.name!r} (opset {opset}; {count} such on the path): rule set {rules.name!r} has no rule for it. "
        f"{nearest(node.op_type, rules.operators())}. Take the gradient with respect to a tensor behind it (wrt=), "
        f"or add a rule: RuleSet({rules.name!r}).rule({node.op_type!r})."
    )
