"""A differentiated model in ONNX Runtime against the same graph in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto

from tests.reference import Reference

Feeds = Mapping[str, Any]


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

    Relative to the output's largest entry, at least 0.02 (saturated units and small differences of large terms are left
    with roundings of numbers of size one): 1e-4 for float32, 2e-2 for float16. Raises NoKernel.
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
        largest = np.max(np.abs(b[np.isfinite(b)]), initial=2e-2)
        off = ~np.isclose(a, b, rtol=epsilon, atol=epsilon * largest, equal_nan=True)
        if np.any(off):
            different[name] = (
                f"{np.sum(off)} of {off.size} differ, by {np.max(np.abs(a - b)[off]):.1e} of {largest:.1e}"
            )
    return different
