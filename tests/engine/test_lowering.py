"""Lowered programs against the programs as they were, in ONNX Runtime itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxplain.engine.lowering import cpu, lower
from onnxplain.engine.session import open_session
from tests.engine.artifacts import Array

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def run(model: ir.Model, feeds: dict[str, Array]) -> Array:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = open_session(proto.SerializeToString(), {}, "cpu", threads=1)
    return np.asarray(session.run(feeds, ["out"])["out"])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def transposed(
    c: int, m: int, size: tuple[int, int], kernel: tuple[int, int], group: int = 1, **given: Any
) -> ir.Model:
    """One ConvTranspose of random weights: (rows, c, *size) -> (rows, m, ...)."""
    weight = np.random.default_rng(0).normal(size=(c, m // group, *kernel)).astype(np.float32)
    x = ir.Value(name="x", type=FLOAT, shape=ir.Shape(["rows", c, *size]))
    w = ir.Value(name="w", type=FLOAT, shape=ir.Shape(weight.shape), const_value=ir.tensor(weight, name="w"))
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    pads, extra = given.get("pads", (0, 0, 0, 0)), given.get("output_padding", (0, 0))
    out = [
        (size[i] - 1) * strides[i] + extra[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]
        for i in range(2)
    ]
    node = ir.node("ConvTranspose", [x, w], {"group": group, **given})
    node.outputs[0].type, node.outputs[0].shape = FLOAT, ir.Shape(["rows", m, *out])
    named = ir.node("Identity", node.outputs)
    named.outputs[0].name = "out"
    named.outputs[0].type, named.outputs[0].shape = FLOAT, node.outputs[0].shape
    graph = ir.Graph(
        [x], named.outputs, nodes=[node, named], initializers=[w], opset_imports={"": 18}, name="transposed"
    )
    return ir.Model(graph, ir_version=10)


def same(model: ir.Model, c: int, size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=(2, c, *size)).astype(np.float32)
    before = run(model, {"x": x})
    cpu.lower(model)
    after = run(model, {"x": x})
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-6 * np.abs(before).max())  # another order of summation


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolution_gradients_of_stride_one(data: st.DataObject) -> None:
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilations = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    pads = [data.draw(st.integers(0, r)) for r in (*reach, *reach)]
    depthwise = data.draw(st.booleans())
    c, m = (4, 4) if depthwise else data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = data.draw(st.tuples(st.integers(9, 11), st.integers(9, 11)))
    model = transposed(
        c, m, size, kernel, group=c if depthwise else 1, dilations=dilations, pads=pads, kernel_shape=kernel
    )
    same(model, c, size)
    assert "ConvTranspose" not in operators(model)


@pytest.mark.parametrize(
    "given_",
    [
        {"strides": (2, 2), "output_padding": (1, 1), "pads": (1, 1, 1, 1)},
        {"strides": (1, 2)},
        {"group": 2},
        {"pads": (3, 3, 3, 3)},
    ],
)
def test_what_conv_does_worse_or_not_at_all_stays(given_: dict[str, Any]) -> None:
    model = transposed(4, 4, (9, 9), (3, 3), **given_)
    same(model, 4, (9, 9))
    assert "ConvTranspose" in operators(model)


def gate(nodes: str, shape: tuple[str | int, ...] = ("rows", 40, 16, 16), arriving: str = "Add(g, g)") -> ir.Model:
    """``nodes`` define open from x; out = Where(open, the arriving gradient, 0)."""
    dims = ",".join(map(str, shape))
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    gate (float[{dims}] x, float[{dims}] g) => (float[{dims}] out)
    <float zero = {{0}}, float one = {{1}}, float six = {{6}}>
    {{
        {nodes}
        gg = {arriving}
        gated = Where(open, gg, zero)
        out = Add(gated, y)
    }}"""
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True))


RELU = "y = Relu(x) open = Greater(y, zero)"
RELU6 = "y = Clip(x, zero, six) low = Greater(x, zero) high = Less(x, six) open = And(low, high)"


def points(rng: np.random.Generator) -> Array:
    """Numbers of every magnitude down to the smallest normal ones, infinite ones, and those next to the corners."""
    x = 10.0 ** rng.uniform(-37, 38, size=(3, 40, 16, 16)) * rng.choice([-1, 1], size=(3, 40, 16, 16))
    six = np.float32(6)
    x[0, 0, :3, 0] = 0, -0.0, np.inf
    x[1, :20] = rng.uniform(-1, 7, size=(20, 16, 16))
    x[2, 7, :4, 3] = six, np.nextafter(six, np.float32(0)), np.nextafter(six, np.float32(9)), -np.inf
    return np.asarray(x, np.float32)


@pytest.mark.parametrize(("nodes", "ceiling"), [(RELU, np.inf), (RELU6, 6.0)], ids=["relu", "relu6"])
def test_gates_are_open_or_closed_to_the_last_bit(nodes: str, ceiling: float) -> None:
    rng = np.random.default_rng(0)
    x = points(rng)
    g = rng.normal(size=x.shape).astype(np.float32)
    model = gate(nodes)
    plain = run(model, {"x": x, "g": g})
    is_open = (x > 0) & ((x < ceiling) | np.isinf(ceiling))
    np.testing.assert_array_equal(plain, np.where(is_open, g + g, 0) + np.clip(x, 0, ceiling).astype(np.float32))
    lower(model, "cpu")
    assert "Where" not in operators(model)
    np.testing.assert_array_equal(run(model, {"x": x, "g": g}), plain)


@pytest.mark.parametrize(
    "model",
    [
        gate("y = LeakyRelu(x) open = Greater(y, zero)"),
        gate("y = Relu(x) open = Greater(y, one)"),
        gate("y = Relu(x) open = Less(y, zero)"),
        gate("y = Clip(x, one, six) low = Greater(x, zero) high = Less(x, six) open = And(low, high)"),
        gate("y = Clip(x, zero, six) low = Greater(x, zero) high = Less(y, six) open = And(low, high)"),
        gate(RELU, shape=("rows", 7)),
        gate(RELU, arriving="Sigmoid(g)"),
    ],
    ids=["leaky", "threshold", "less", "another clip", "two tensors", "vectors", "not blocked"],
)
def test_other_gates_stay(model: ir.Model) -> None:
    lower(model, "cpu")
    assert "Where" in operators(model)


def test_cuda_runs_programs_as_they_are() -> None:
    model = transposed(4, 4, (9, 9), (3, 3))
    before = ir.to_proto(model).SerializeToString()
    lower(model, "cuda")
    assert ir.to_proto(model).SerializeToString() == before
