"""Rule sets that derive from the standard one. ``RULE_SETS`` is the explicit list, by name."""

from __future__ import annotations

from onnxplain_convert.grad.rules import GRADIENT
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.relevance.deconvnet import DECONVNET
from onnxplain_convert.relevance.guided import GUIDED

RULE_SETS: dict[str, RuleSet] = {rules.name: rules for rules in (GRADIENT, GUIDED, DECONVNET)}
