"""The reference itself: its kernels against what ONNX's own cases expect, its precision, its sense for kinks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.reference import Reference
from tests.reference.differences import compare, slope
from tests.reference.kernels import KERNELS


@pytest.fixture(scope="module")
def operator_cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero and overflow on purpose while they are made
        from onnx.backend.test.case.node import collect_testcases

        return collect_testcases(None)


@pytest.mark.parametrize("operator", [kernel.__name__ for kernel in KERNELS])
def test_kernel_gives_what_the_onnx_cases_expect(operator: str, operator_cases: list[Any]) -> None:
    cases = [c for c in operator_cases if [n.op_type for n in c.model.graph.node] == [operator]]
    assert cases
    for case in cases:
        inputs, expected = case.data_sets[0]
        feeds = {info.name: x for info, x in zip(case.model.graph.input, inputs, strict=True)}
        values = Reference(case.model)(feeds)
        pairs = [
            (name, *pair)
            for (name, value), wanted in zip(values.items(), expected, strict=True)
            for pair in (zip(value, wanted, strict=True) if isinstance(value, list) else [(value, wanted)])
        ]
        for name, value, wanted in pairs:
            assert value.dtype == (np.float64 if wanted.dtype.kind == "f" else wanted.dtype), (case.name, name)
            # the expected values are float32, in one case to four digits, or float16
            atol = 2e-3 if wanted.dtype == np.float16 else 1e-4
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=atol, err_msg=f"{case.name} {name}")


def test_whatever_makes_float32_makes_float64() -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        three_ways (int64[2] shape, double[1] x, bool c) => (float[2] zeros, float third, float narrowed, float inner)
        {
            zeros = ConstantOfShape (shape)
            three = Constant <value_float = 3.0> ()
            one = Constant <value = float {1.0}> ()
            third = Div (one, three)
            narrowed = Cast <to = 1> (x)
            inner = If (c) <then_branch = yes () => (float y) { a = Constant <value_float = 3.0> () y = Div (one, a) },
                            else_branch = no () => (float z) { z = Identity (one) }>
        }""")
    values = Reference(model)({"shape": np.array([1, 2]), "x": np.array([1 / 3]), "c": np.array(True)})
    assert all(value.dtype == np.float64 for value in values.values())
    assert values["third"] == values["inner"] == values["narrowed"][0] == 1 / 3


def function(text: str) -> Any:
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> f (double[3] x) => (double[M] y) {{ {text} }}'
    )
    onnx.checker.check_model(model)
    return Reference(model)


def test_slope_of_a_smooth_function_is_exact_to_1e_9() -> None:
    x, direction, seed = np.array([0.3, -1.2, 2.0]), np.array([1.0, -2.0, 0.5]), np.array([0.7, 0.1, -1.5])
    found = slope(function("s = Sin (x) y = Exp (s)"), {"x": x}, "x", direction, {"y": seed})
    assert found is not None
    assert found.value == pytest.approx(np.sum(seed * np.exp(np.sin(x)) * np.cos(x) * direction), rel=1e-9)


@pytest.mark.parametrize(
    "text", ["y = Relu (x)", "y = Abs (x)", "y = Floor (x)", "y = ReduceMax (x)", "y = Sqrt (x)", "y = Log (x)"]
)
def test_no_slope_where_there_is_no_derivative(text: str) -> None:
    # a corner, a jump, a tie and infinite derivatives, at 0 and between the two largest
    assert (
        slope(function(text), {"x": np.array([0.0, 1.0, 1.0])}, "x", np.array([1.0, 0.3, -0.2]), {"y": np.ones(3)})
        is None
    )


def test_compare_tells_right_from_wrong() -> None:
    x, seeds, rng = np.array([0.3, -1.2, 2.0]), {"y": np.array([0.7, 0.1, -1.5])}, np.random.default_rng(0)
    f, right = function("y = Mul (x, x)"), 2 * x * seeds["y"]
    assert compare(f, {"x": x}, "x", right, seeds, rng).error < 1e-8
    assert compare(f, {"x": x}, "x", right * (1 + 1e-4), seeds, rng).error > 1e-5
    assert compare(f, {"x": x}, "x", np.zeros(3), seeds, rng).error > 0.1
