"""A rule set: which function sends a gradient back through which operator. A value, not a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from onnxplain_convert.grad.backward import Backward

Rule = Callable[["Backward"], "ir.Value | Sequence[ir.Value | None] | Mapping[ir.Value, ir.Value | None] | None"]
"""Takes what a rule sees, returns the gradient of every input (None: no gradient), or one value for the first input, or
(control flow) a mapping from what the node reads to its gradient. A gradient may have the broadcast shape: the walk
sums it to its input's shape."""

QUANTISERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"})
"""Operators that round: the walk goes back through their integer results."""

Key = tuple[str, str, int]
"""(domain, operator, since_version): the rule holds from that version of the operator on."""

State = Literal["rule", "no gradient", "missing"]


@dataclass(frozen=True)
class RuleSet:
    """Rules by (domain, operator, since_version), derived from ``parent`` where this set is silent.

    Three states per operator: a rule, no gradient *on purpose* (``no_gradient`` says why), or missing.
    """

    name: str
    parent: RuleSet | None = None
    rules: dict[Key, Rule] = field(default_factory=dict)
    no_gradient: dict[tuple[str, str], str] = field(default_factory=dict)

    def rule(self, *operators: str, since: int = 1, domain: str = "") -> Callable[[Rule], Rule]:
        """Decorator: this function is the rule of these operators from version ``since`` on."""

        def register(function: Rule) -> Rule:
            for operator in operators:
                self._add((domain, operator, since), function)
            return function

        return register

    def has_no_gradient(self, reason: str, *operators: str, domain: str = "") -> None:
        """These operators have no gradient on purpose, for that reason."""
        for operator in operators:
            self.no_gradient[domain, operator] = reason

    def _add(self, key: Key, function: Rule) -> None:
        if key in self.rules:
            raise ValueError(f"rule set {self.name!r} has two rules for {key}")
        self.rules[key] = function

    def merged(self, families: Iterable[RuleSet]) -> RuleSet:
        """This set with the rules of ``families`` added; the same key twice is an error."""
        for family in families:
            for key, function in family.rules.items():
                self._add(key, function)
            self.no_gradient.update(family.no_gradient)
        return self

    def find(self, node: ir.Node, opset: int) -> Rule | None:
        """The rule of a node's operator at this opset: of the highest since_version not above the operator's own."""
        version = since_version(node.domain, node.op_type, opset)
        for rule_set in self.lineage():
            fitting = [k for k in rule_set.rules if k[:2] == (node.domain, node.op_type) and k[2] <= version]
            if fitting:
                return rule_set.rules[max(fitting, key=lambda k: k[2])]
        return None

    def state(self, node: ir.Node, opset: int) -> State:
        if self.why_none(node) is not None:
            return "no gradient"
        return "rule" if self.find(node, opset) else "missing"

    def why_none(self, node: ir.Node) -> str | None:
        """Why this operator has no gradient on purpose, else None."""
        for rule_set in self.lineage():
            if (reason := rule_set.no_gradient.get((node.domain, node.op_type))) is not None:
                return reason
        return None

    def operators(self) -> set[str]:
        """All operators with a rule here or in a parent, as ``domain::operator`` (plain in ai.onnx)."""
        return {f"{d}::{op}" if d else op for rules in self.lineage() for d, op, _ in rules.rules}

    def lineage(self) -> Iterable[RuleSet]:
        current: RuleSet | None = self
        while current is not None:
            yield current
            current = current.parent


def since_version(domain: str, op_type: str, opset: int) -> int:
    """The version of the operator that this opset has."""
    try:
        return onnx.defs.get_schema(op_type, opset, domain).since_version
    except onnx.defs.SchemaError:
        return opset
