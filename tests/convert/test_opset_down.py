"""Models newer than the window: ONNX's own conformance cases, in ONNX Runtime, after bringing them down to opset 21."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from onnxplain.errors import Unsupported
from onnxplain_convert.canonical import canonicalise
from tests.convert.models import constant, model, normal, run

EXPANDED = (
    "Attention",
    "RMSNormalization",
    "RotaryEmbedding",
    "Swish",
    "SwiGLU",
    "LinearAttention",
    "CausalConvWithState",
)
"""Operators that opset 21 does not have, and that ONNX defines by others."""

CHANGED = ("Elu", "Conv", "Dropout", "GridSample", "MaxPool", "Pad", "Reshape", "TopK", "DequantizeLinear")
"""A sample of those that changed since."""

PLAIN = frozenset(
    TensorProto.DataType.Value(x) for x in ("FLOAT", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL")
)


@cache
def cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    return {case.name: case for case in collect_testcases(None)}


def of(operators: tuple[str, ...], most: int) -> list[str]:
    """Names of cases of opset 22 and later; up to ``most`` per operator, spread over them."""
    chosen = []
    for operator in operators:
        names = [
            name
            for name, case in cases().items()
            if case.model.opset_import[0].version > 21
            and any(n.op_type == operator for n in case.model.graph.node)
            and all(isinstance(x, np.ndarray) for x in case.data_sets[0][0])
            and all(v.type.tensor_type.elem_type in PLAIN for v in (*case.model.graph.input, *case.model.graph.output))
            and not any(a.name == "training_mode" for n in case.model.graph.node for a in n.attribute)
            and "expanded" not in name
            and "training" not in name
        ]
        chosen += names[:: max(1, len(names) // most)][:most]
    return chosen


@pytest.mark.filterwarnings("ignore")  # the cases are made by numpy at import, with overflows on purpose
@pytest.mark.parametrize("operator", [*EXPANDED, *CHANGED])
def test_conformance_after_bringing_down(operator: str) -> None:
    names = of((operator,), 8)
    assert names
    for name in names:
        case = cases()[name]
        new = canonicalise(case.model)
        assert new.opset_imports[""] == 21
        onnx.checker.check_model(ir.to_proto(new), full_check=True)
        inputs, outputs = case.data_sets[0]
        feeds = {v.name: x for v, x in zip(case.model.graph.input, inputs, strict=True) if v.name}
        got = run(new, feeds)
        for value, expected in zip(case.model.graph.output, outputs, strict=True):
            # ONNX's own default tolerance for these cases.
            np.testing.assert_allclose(got[value.name], expected, rtol=1e-3, atol=1e-5, err_msg=name)


def test_attributes_that_mean_nothing_below_are_dropped() -> None:
    body = '(float[n] x) => (float[n] y) { i = Cast <to = 7, round_mode = "down"> (x)  y = Cast <to = 1> (i) }'
    new = canonicalise(model(25, body, ir_version=11))
    assert all("round_mode" not in node.attributes for node in new.graph)
    np.testing.assert_array_equal(run(new, {"x": np.array([-1.5, 2.75], np.float32)})["y"], [-1, 2])


def test_a_type_to_dequantise_to_becomes_the_type_of_the_scale() -> None:
    body = "(uint8[n] x) => (float16[n] y) { y = DequantizeLinear <output_dtype = 10> (x, s) }"
    proto = constant(model(23, body, ir_version=11), s=np.array(0.5, np.float32))
    got = run(canonicalise(proto), {"x": np.array([3, 200], np.uint8)})["y"]
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, [1.5, 100])


def test_names_stay_where_an_operator_is_expanded() -> None:
    body = "(float[n, 4] x) => (float[n, 4] y) { [act] s = Swish <alpha = 0.7> (x)  y = Relu (s) }"
    new = canonicalise(model(24, body, ir_version=11))
    assert [v.name for v in new.graph.outputs] == ["y"]
    assert "s" in ir.convenience.create_value_mapping(new.graph)
    assert any((node.name or "").startswith("act/") for node in new.graph)
    x = normal(3, 4)
    np.testing.assert_allclose(run(new, {"x": x})["y"], np.maximum(x / (1 + np.exp(-0.7 * x)), 0), rtol=1e-5, atol=1e-6)


def test_an_expanded_operator_inside_a_branch() -> None:
    branch = "yes () => (float[n, 4] a) { a = Swish (x) }"
    other = "no () => (float[n, 4] b) { b = Identity (x) }"
    body = (
        f"(float[n, 4] x, bool c) => (float[n, 4] y) {{ y = If (c) <then_branch = {branch}, else_branch = {other}> }}"
    )
    new = canonicalise(model(24, body, ir_version=11))
    x = normal(2, 4)
    np.testing.assert_allclose(run(new, {"x": x, "c": np.array(True)})["y"], x / (1 + np.exp(-x)), rtol=1e-5)
    np.testing.assert_array_equal(run(new, {"x": x, "c": np.array(False)})["y"], x)


def test_what_opset_21_cannot_say_is_named() -> None:
    body = "(float[n] x) => (int32[n] y) { [bits] y = BitCast <to = 6> (x) }"
    with pytest.raises(Unsupported, match=r"BitCast-26 'bits'.*opset 21 has no such operator"):
        canonicalise(model(26, body, ir_version=13))


def test_types_that_opset_21_lacks_are_named() -> None:
    body = "(bfloat16[n, 4, 4] x) => (bfloat16[n, 4, 1] y) { [pool] y = GlobalAveragePool (x) }"
    with pytest.raises(Unsupported, match=r"GlobalAveragePool-22 'pool'.*bfloat16"):
        canonicalise(model(22, body, ir_version=10))


def test_what_opset_21_takes_in_other_types_only_is_said_by_the_operators_own_definition() -> None:
    body = "(bfloat16[n, 4] x) => (bfloat16[n, 4] y) { [act] y = Elu (x) }"
    found = canonicalise(model(22, body, ir_version=10))
    assert "Elu" not in {node.op_type for node in found.graph}
