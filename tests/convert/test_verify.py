"""The checks at conversion: they pass what is right, and catch what is wrong."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxplain_convert.explainable as pipeline
from onnxplain.artifact import Artifact
from onnxplain.errors import Unsupported
from onnxplain_convert import convert
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.grad.backward import Backward
from onnxplain_convert.grad.ruleset import RuleSet
from onnxplain_convert.relevance import RULE_SETS
from onnxplain_convert.verify import Array, evaluator, parity
from tests.convert.models import constant, model, normal

GRADIENT = RULE_SETS["gradient"]
NET = "(float[n, 6] x) => (float[n, 4] y) { a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, v) }"


def net() -> onnx.ModelProto:
    return constant(model(18, NET), w=normal(6, 8), v=normal(8, 4, seed=1))


def with_wrong_rule(monkeypatch: pytest.MonkeyPatch, name: str, operator: str, factor: float) -> None:
    """The rule set ``name`` with the gradient of one operator multiplied."""
    wrong = RuleSet(name, parent=RULE_SETS[name])

    @wrong.rule(operator)
    def rule(b: Backward) -> list[ir.Value | None]:
        factors = b.op.const(factor, b.g.dtype)
        return [None if g is None else b.op.Mul(g, factors) for g in b.vjp()]

    monkeypatch.setitem(RULE_SETS, name, wrong)


@pytest.mark.parametrize("factor", [0.0, 0.5, -1.0, 1.3])
def test_a_wrong_gradient_is_caught(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    convert(net(), rules=["gradient"])
    with_wrong_rule(monkeypatch, "gradient", "Relu", factor)
    with pytest.raises(Unsupported, match="is not its slope"):
        convert(net(), rules=["gradient"])


def test_guided_that_gates_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULE_SETS, "guided", RuleSet("guided", parent=GRADIENT))
    with pytest.raises(Unsupported, match="guided backpropagation gave the plain gradient"):
        convert(net())


def test_guided_without_gates_is_the_gradient() -> None:
    convert(
        constant(model(18, "(float[n, 6] x) => (float[n, 8] y) { a = MatMul (x, w)  y = Tanh (a) }"), w=normal(6, 8))
    )


def test_a_constant_network_has_no_slope_to_compare() -> None:
    """Its gradient drowns in rounding: that is no error."""
    body = (
        "(float[n, 6] x) => (float[n, 6] y) { k = Constant <value_float = 1e-30> ()  a = Mul (x, k)  y = Add (a, b) }"
    )
    made = convert(constant(model(18, body), b=np.ones(6, np.float32)))
    assert "gradient/slope" not in made.manifest.parity


def test_gradients_that_are_zero_on_purpose_pass() -> None:
    manifest = convert(model(18, "(float[n, 6] x) => (float[n, 6] y) { a = Round (x)  y = Add (a, x) }")).manifest
    assert manifest.zero_gradient == ("Round_0",)


def test_float64_and_float16() -> None:
    for code, dtype, limit in ((11, np.float64, 1e-12), (10, np.float16, 1e-2)):
        body = NET.replace("float", {11: "double", 10: "float16"}[code])
        proto = constant(model(18, body), w=normal(6, 8, dtype=dtype), v=normal(8, 4, seed=1, dtype=dtype))
        manifest = convert(proto).manifest
        assert manifest.differentiated[0].dtype == np.dtype(dtype).name
        assert manifest.parity["y/relative"] <= limit


def test_parity_sees_a_difference() -> None:
    y = normal(3, 4)
    assert parity({"y": y}, {"y": y}) == {"y/absolute": 0.0, "y/relative": 0.0}
    found = parity({"y": y + np.float32(1e-5)}, {"y": y})
    assert 0.9e-5 < found["y/absolute"] < 1.1e-5
    with pytest.raises(Unsupported, match="differs from the source"):
        parity({"y": y * 1.01}, {"y": y})
    with pytest.raises(Unsupported, match="has shape"):
        parity({"y": y[:2]}, {"y": y})


def test_parity_is_measured_against_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversion that changes the model is caught: here one that drops the last bit of the work."""
    right = canonicalise

    def wrong(source: ir.Model, *, inference: bool) -> ir.Model:
        made = right(source, inference=inference)
        (relu,) = [node for node in made.graph if node.op_type == "Relu"]
        relu.op_type = "Abs"
        return made

    monkeypatch.setattr(pipeline, "canonicalise", wrong)
    with pytest.raises(Unsupported, match="differs from the source"):
        convert(net())


def test_a_model_that_the_runtime_refuses_runs_in_the_reference() -> None:
    """Opset 26 is the newest of ONNX Runtime 1.31; onnx knows 28."""
    newest = onnx.defs.onnx_opset_version()
    proto = model(newest, "(float[n] x) => (float[n] y) { y = Abs (x) }", ir_version=onnx.IR_VERSION)
    got = evaluator(proto.SerializeToString())({"x": np.array([-2.0], np.float32)}, ["y"])
    np.testing.assert_array_equal(got["y"], [2.0])
    assert convert(proto).manifest.parity["y/relative"] == 0.0


def test_without_onnxruntime_the_reference_evaluator_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # import then raises ImportError
    manifest = convert(net()).manifest
    assert manifest.rows == "independent"
    assert manifest.parity["y/relative"] == 0.0 and manifest.parity["gradient/slope"] < 1e-2


def test_without_onnxruntime_convolutions_are_left_unmeasured_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    proto = constant(
        model(18, "(float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) { y = Conv (x, w) }"), w=normal(4, 3, 3, 3)
    )
    manifest = convert(proto).manifest
    assert manifest.parity == {}
    assert "onnxplain[cpu]" in manifest.source["unmeasured"]


def test_weights_are_handed_over_and_given_back() -> None:
    new = ir.from_proto(
        constant(model(18, "(float[n, 64] x) => (float[n, 64] y) { y = MatMul (x, w) }"), w=normal(64, 64))
    )
    assert isinstance(new, ir.Model)
    before = new.graph.initializers["w"].const_value
    x: Array = normal(2, 64, seed=3)
    got = evaluator(new)({"x": x}, ["y"])["y"]
    np.testing.assert_allclose(got, x @ normal(64, 64), rtol=1e-4, atol=1e-5)
    assert new.graph.initializers["w"].const_value is before


def test_the_artifact_is_a_value() -> None:
    made = convert(net())
    assert dataclasses.is_dataclass(Artifact)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.manifest = made.manifest  # type: ignore[misc]
