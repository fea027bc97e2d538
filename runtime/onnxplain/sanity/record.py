"""An audit as JSON: every number, and all that is needed to run it again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from typing import Any

import numpy as np

from onnxplain.result import versions
from onnxplain.sanity.audit import Audit
from onnxplain.sanity.finding import Finding

SCHEMA = 1


def record(audit: Audit) -> dict[str, Any]:
    """Plain JSON values; what is not defined is null. Axes are named beside the numbers."""
    return {
        "schema": SCHEMA,
        "model": {"digest": audit.digest, "output": audit.output},
        "provider": audit.provider,
        "versions": {**versions(), **{name: importlib.metadata.version(name) for name in ("scipy", "scikit-image")}},
        "options": audit.options.record(),
        "images": [{"name": each.name, "sha256": each.digest} for each in audit.specimens],
        "levels": [{"name": level.name, "initializers": list(level.names)} for level in audit.levels],
        "axes": {
            "curves": ["level", "draw", "image"],
            "controls": ["draw", "image"],
            "entropy": ["level", "draw", "image"],
            "agreement": ["level", "draw", "image"],
        },
        "methods": [_finding(each, audit) for each in audit.findings],
        "model_says": None
        if audit.trained is None
        else {
            "trained": {"entropy": _plain(audit.trained.entropy), "top": _plain(audit.trained.top)},
            "entropy": _plain(audit.entropy),
            "agreement": _plain(audit.agreement),
        },
        "left_out": audit.left_out,
        "notes": list(audit.notes),
    }


def _finding(finding: Finding, audit: Audit) -> dict[str, Any]:
    return {
        "method": finding.method,
        "options": {name: _plain(value) for name, value in finding.options.items()},
        "targets": _plain(finding.targets),
        "verdict": None if finding.verdict is None else _plain(dataclasses.asdict(finding.verdict)),
        "curves": {
            measure: {
                "values": _plain(values),
                "intervals": [_plain(dataclasses.asdict(audit.bootstrap.interval(level))) for level in values],
            }
            for measure, values in finding.curves.items()
        },
        "controls": {
            control: {
                measure: {
                    "values": _plain(values),
                    "interval": _plain(dataclasses.asdict(audit.bootstrap.interval(values))),
                }
                for measure, values in tables.items()
            }
            for control, tables in finding.controls.items()
        },
    }


def _plain(value: Any) -> Any:
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            return None
        case None | str() | bool() | int() | float():
            return value
        case _:
            return str(value)
