"""One differentiated model against central differences in float64, and against itself in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from onnxplain.artifact import gradient_name, seed_name
from tests.reference import Reference
from tests.reference.differences import compare, jittered

TOLERANCE = 1e-6
"""Relative error of <gradient, direction> against central differences in float64, which are good to about 1e-8."""

TRIES = 6
"""How often a point without a derivative (a tie, a corner) is moved a little before it is given up."""

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of one model: ``wrong`` {input: what is wrong}, ``kinks`` inputs without a derivative near by."""

    wrong: dict[str, str] = field(default_factory=dict)
    kinks: tuple[str, ...] = ()
    moved: bool = False
    """Was the point moved to find a derivative?"""


def random_seeds(model: ModelProto, feeds: Feeds, outputs: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Normal cotangents for the outputs, under the names of their inputs in the differentiated model."""
    rng = np.random.default_rng(seed)
    values = Reference(model)(feeds, outputs)
    return {seed_name(name): rng.standard_normal(np.shape(value)) for name, value in values.items()}


def check(
    model: ModelProto,
    differentiated: ModelProto,
    feeds: Feeds,
    seeds: Feeds,
    wrt: Sequence[str],
    outputs: Sequence[str],
    rules: str = "gradient",
) -> Verdict:
    """Gradients with respect to ``wrt`` against central differences of ``model``, in float64.

    An input whose point has no derivative is moved a little and tried again.
    """
    onnx.checker.check_model(differentiated, full_check=True)
    rng = np.random.default_rng(1)
    forward, backward = Reference(model), Reference(differentiated)
    cotangents = {name: seeds[seed_name(name)] for name in outputs}
    point = {name: np.asarray(value, np.float64) if name in wrt else value for name, value in feeds.items()}
    now, then = backward({**point, **seeds}, outputs), forward(point, outputs)
    changed = [
        name for name in outputs if not np.allclose(now[name], then[name], rtol=1e-9, atol=1e-12, equal_nan=True)
    ]
    if changed:
        return Verdict(dict.fromkeys(changed, "the differentiated graph computes another value"))
    left, wrong, moved = list(wrt), {}, False
    for attempt in range(TRIES):
        at = point if attempt == 0 else jittered(point, left, rng, 0.02)
        found = backward({**at, **seeds}, [gradient_name(rules, name) for name in left])
        kinks = []
        for name in left:
            gradient = found[gradient_name(rules, name)]
            if gradient.shape != at[name].shape:
                wrong[name] = f"shape {gradient.shape} for an input of {at[name].shape}"
                continue
            agreement = compare(lambda f: forward(f, outputs), at, name, gradient, cotangents, rng)
            if not agreement.has_derivative:
                kinks.append(name)
            elif not agreement.error < TOLERANCE:
                wrong[name] = f"relative error {agreement.error:.1e}"
            moved = moved or attempt > 0
        left = kinks
        if not left:
            break
    return Verdict(wrong, tuple(left), moved)


class NoKernel(Exception):
    """ONNX Runtime cannot run a graph."""


def run_onnxruntime(model: ModelProto, feeds: Feeds, outputs: Sequence[str]) -> dict[str, Any]:
    """Outputs by name on one CPU thread, the feeds cast to the types of the model's inputs. Raises NoKernel."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    types = {i.name: i.type for i in model.graph.input}
    cast = {name: _cast(value, types[name]) for name, value in feeds.items() if name in types}
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return dict(zip(outputs, session.run(list(outputs), cast), strict=True))
    except Exception as error:  # onnxruntime has a class of its own per status, with nothing in common
        raise NoKernel(str(error)) from error


def _cast(value: Any, kind: onnx.TypeProto) -> Any:
    if not isinstance(value, np.ndarray) or not kind.HasField("tensor_type"):
        return value
    return value.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))


def differences_in_onnxruntime(differentiated: ModelProto, feeds: Feeds, names: Sequence[str]) -> dict[str, str]:
    """Outputs that ONNX Runtime computes otherwise than the reference does in float64, with the difference.

    Relative to the output's largest entry: 1e-4 for float32, 2e-2 for float16. Raises NoKernel.
    """
    values = run_onnxruntime(differentiated, feeds, names)
    types = {i.name: i.type for i in differentiated.graph.input}
    rounded = {name: _cast(value, types[name]) for name, value in feeds.items() if name in types}
    expected = Reference(differentiated)(rounded, names)
    different = {}
    for name in names:
        a, b = values[name].astype(np.float64), expected[name]
        if a.shape != b.shape:
            different[name] = f"shape {a.shape}, not {b.shape}"
            continue
        epsilon = 2e-2 if values[name].dtype == np.float16 else 1e-4
        largest = np.max(np.abs(b[np.isfinite(b)]), initial=1e-3)
        off = ~np.isclose(a, b, rtol=epsilon, atol=epsilon * largest, equal_nan=True)
        if np.any(off):
            different[name] = (
                f"{np.sum(off)} of {off.size} differ, by {np.max(np.abs(a - b)[off]):.1e} of {largest:.1e}"
            )
    return different
