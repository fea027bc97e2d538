"""Small graphs in ONNX's text form, differentiated: values and gradients in float64 and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnxplain.artifact import gradient_name, seed_name
from onnxplain_convert import differentiate
from tests.reference import Reference

Array = NDArray[Any]

EXACT = 1e-10
"""Relative error in float64: some hundred roundings of 1e-16, with cancellation."""

ROUNDED = 2e-5
"""The same in float32."""


@dataclass(frozen=True)
class Found:
    """Gradients by name: in float64 by the reference, in float32 by ONNX Runtime."""

    exact: dict[str, Array]
    rounded: dict[str, Array]


def model(text: str, opset: int = 21) -> onnx.ModelProto:
    """A graph in ONNX's text form as a checked model."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    onnx.checker.check_model(proto, full_check=True)
    return proto


def gradients(
    proto: onnx.ModelProto,
    feeds: Mapping[str, Array],
    seed: Array,
    wrt: list[str],
    y: str = "y",
    *,
    evaluate: bool = True,
) -> Found:
    """The gradients of sum(seed * y); without ``evaluate`` in ONNX Runtime only (what the reference cannot run)."""
    found = differentiate(proto, wrt, [y])
    onnx.checker.check_model(found, full_check=True)
    names = [gradient_name("gradient", t) for t in wrt]
    exact = Reference(found)({**feeds, seed_name(y): seed}) if evaluate else {}
    session = onnxruntime.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in {**feeds, seed_name(y): seed}.items()}
    rounded = {name: np.asarray(value) for name, value in zip(names, session.run(names, given), strict=True)}
    return Found(
        {t: exact[n] for t, n in zip(wrt, names, strict=True) if n in exact},
        {t: rounded[n] for t, n in zip(wrt, names, strict=True)},
    )


def distance(got: Array, want: Array) -> float:
    """Largest difference relative to the largest value."""
    want = np.asarray(want)
    assert got.shape == want.shape
    return float(np.abs(got - want).max(initial=0.0) / max(np.abs(want).max(initial=0.0), 1e-12))
