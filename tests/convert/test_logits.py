"""Trailing probabilities are recognised through what exporters put behind them, and only those."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxplain_convert import convert
from onnxplain_convert.canonical import canonicalise
from onnxplain_convert.explainable.logits import expose_logits
from tests.convert.models import model, normal, run

RECOGNISED = {
    "softmax": "z = Tanh (x)  y = Softmax (z)",
    "sigmoid": "z = Tanh (x)  y = Sigmoid (z)",
    "identity": "z = Tanh (x)  p = Softmax (z)  y = Identity (p)",
    "cast": "z = Tanh (x)  p = Softmax (z)  d = Cast <to = 11> (p)  y = Cast <to = 1> (d)",
    "reshape": "z = Tanh (x)  p = Softmax (z)  s = Constant <value_ints = [-1, 3]> ()  y = Reshape (p, s)",
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_recognised(case: str) -> None:
    new = canonicalise(model(18, f"(float[n, 3] x) => (float[n, 3] y) {{ {RECOGNISED[case]} }}"))
    assert expose_logits(new) == {"y": "z"}
    assert [v.name for v in new.graph.outputs] == ["y", "z"]
    x = normal(2, 3)
    np.testing.assert_allclose(run(new, {"x": x})["z"], np.tanh(x), rtol=1e-6)


NOT = {
    "softmax inside": "z = Tanh (x)  p = Softmax (z)  y = MatMul (p, p)",
    "scaled": "p = Softmax (x)  y = Add (p, p)",
    "classes": "p = Softmax (x)  y = Relu (p)",
    "log-probabilities": "y = LogSoftmax (x)",
}


@pytest.mark.parametrize("case", NOT)
def test_not_recognised(case: str) -> None:
    new = canonicalise(model(18, f"(float[3, 3] x) => (float[3, 3] y) {{ {NOT[case]} }}"))
    assert expose_logits(new) == {}
    assert [v.name for v in new.graph.outputs] == ["y"]


def test_logits_that_are_an_output_already() -> None:
    new = canonicalise(model(18, "(float[n, 3] x) => (float[n, 3] z, float[n, 3] y) { z = Tanh (x)  y = Softmax (z) }"))
    assert expose_logits(new) == {"y": "z"}
    assert [v.name for v in new.graph.outputs] == ["z", "y"]


def test_a_softmax_of_the_input_itself() -> None:
    made = convert(model(18, "(float[n, 3] x) => (float[n, 3] y) { y = Softmax (x) }"))
    assert made.manifest.default_output == "x/logits"
    assert all(not v.is_graph_input() for v in made.model.graph.outputs)


def test_two_heads() -> None:
    body = """(float[n, 3] x) => (float[n, 3] a, float[n, 3] b) {
        s = Tanh (x)  a = Softmax (s)  t = Neg (x)  b = Sigmoid (t)
    }"""
    manifest = convert(model(18, body)).manifest
    assert manifest.probabilities == {"a": "s", "b": "t"}
    assert manifest.default_output == "s"
    assert manifest.explained == ("a", "b", "s", "t")


def test_old_softmax_over_ones_is_recognised() -> None:
    """As in SqueezeNet-9: Softmax of (1, 1000, 1, 1), coerced to two dimensions at axis 1."""
    new = canonicalise(
        model(9, "(float[n, 3, 1, 1] x) => (float[n, 3, 1, 1] y) { z = Tanh (x)  y = Softmax (z) }", ir_version=4)
    )
    assert expose_logits(new) == {"y": "z"}
    assert isinstance(new, ir.Model)
