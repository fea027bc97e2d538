"""Which operators of a model have a gradient, before anything is converted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.explainable.select import explained
from onnxplain_convert.frontends import read
from onnxplain_convert.grad.ruleset import State, since_version
from onnxplain_convert.graph.shapes import is_float, reads
from onnxplain_convert.relevance import RULE_SETS


@dataclass(frozen=True)
class Operator:
    """One operator as the canonical model uses it: ``opset`` is the version that its form dates from."""

    domain: str
    name: str
    opset: int
    count: int
    state: State
    nodes: tuple[str, ...]
    """Names of the nodes, in execution order."""


@dataclass(frozen=True)
class Coverage:
    """What conversion would find. ``source_opset`` by domain, ``opset`` of the canonical model."""

    source_opset: dict[str, int]
    opset: int
    operators: tuple[Operator, ...]
    """Operators on nodes that compute float tensors from the inputs, most frequent first."""

    @property
    def missing(self) -> tuple[Operator, ...]:
        """Operators without a rule: conversion refuses where one lies between an input and an explained output."""
        return tuple(op for op in self.operators if op.state == "missing")


def coverage(model: Any, rules: str = "gradient") -> Coverage:
    """Count the operators of a model (anything that ``convert`` takes) by whether the rule set has a rule for them.

    Raises BadModel or Unsupported where the model cannot even be brought into canonical form.
    """
    source = read(model)
    canonical = canonicalise(source.model, inference=True)
    explained(canonical, None)
    rule_set = RULE_SETS[rules]
    opset = canonical.opset_imports[""]
    live = set(canonical.graph.inputs)
    counts: Counter[tuple[str, str, State]] = Counter()
    names: dict[tuple[str, str, State], list[str]] = {}
    for node in canonical.graph:
        if live.isdisjoint(reads(node)):
            continue
        live.update(node.outputs)
        if not any(is_float(v) for v in node.outputs):
            continue
        key = (node.domain, node.op_type, rule_set.state(node, opset))
        counts[key] += 1
        names.setdefault(key, []).append(node.name or "")
    operators = tuple(
        Operator(domain, name, since_version(domain, name, opset), count, state, tuple(names[domain, name, state]))
        for (domain, name, state), count in counts.most_common()
    )
    return Coverage(dict(source.model.opset_imports), opset, operators)
