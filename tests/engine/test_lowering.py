"""Lowered programs against the programs as they were, in ONNX Runtime itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxplain.engine.lowering import cpu, lower
from tests.engine.artifacts import Array
from tests.engine.graphs import operators, parsed, run

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def transposed(
    c: int,
    m: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    group: int = 1,
    *,
    crop: bool = False,
    then: str = "Identity",
    **given: Any,
) -> ir.Model:
    """One ConvTranspose of random weights: (rows, c, *size) -> (rows, m, ...).

    ``crop``: the second row and the third column are the first of the result. ``then``: what is done with it.
    """
    weight = np.random.default_rng(0).normal(size=(c, m // group, *kernel)).astype(np.float32)
    x = ir.Value(name="x", type=FLOAT, shape=ir.Shape(["rows", c, *size]))
    w = ir.Value(name="w", type=FLOAT, shape=ir.Shape(weight.shape), const_value=ir.tensor(weight, name="w"))
    strides, dilations = given.get("strides", (1, 1)), given.get("dilations", (1, 1))
    pads, extra = given.get("pads", (0, 0, 0, 0)), given.get("output_padding", (0, 0))
    out = [
        (size[i] - 1) * strides[i] + extra[i] + dilations[i] * (kernel[i] - 1) + 1 - pads[i] - pads[2 + i]
        for i in range(2)
    ]
    nodes = [ir.node("ConvTranspose", [x, w], {"group": group, **given})]
    typed(nodes[0], m, out)
    constants = [w]
    if crop:
        vectors = {"starts": [1, 2], "ends": out, "axes": [2, 3]}
        bounds = [ir.Value(name=k, const_value=ir.tensor(np.array(v), name=k)) for k, v in vectors.items()]
        for bound in bounds:
            bound.type, bound.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([2])
        constants += bounds
        nodes.append(ir.node("Slice", [nodes[0].outputs[0], *bounds]))
        typed(nodes[1], m, [out[0] - 1, out[1] - 2])
    last = nodes[-1].outputs[0]
    assert last.shape is not None
    nodes.append(ir.node(then, [last, last] if then == "Add" else [last]))
    nodes[-1].outputs[0].name = "out"
    nodes[-1].outputs[0].type, nodes[-1].outputs[0].shape = FLOAT, last.shape
    graph = ir.Graph(
        [x], nodes[-1].outputs, nodes=nodes, initializers=constants, opset_imports={"": 18}, name="transposed"
    )
    return ir.Model(graph, ir_version=10)


def typed(node: ir.Node, channels: int, size: list[int]) -> None:
    node.outputs[0].type, node.outputs[0].shape = FLOAT, ir.Shape(["rows", channels, *size])


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
    c, m, group = data.draw(st.sampled_from([(4, 4, 4), (32, 32, 8), (32, 64, 2), (3, 4, 1), (1, 1, 1), (2, 1, 1)]))
    size = data.draw(st.tuples(st.integers(9, 11), st.integers(9, 11)))
    model = transposed(c, m, size, kernel, group, dilations=dilations, pads=pads, kernel_shape=kernel)
    same(model, c, size)
    assert "ConvTranspose" not in operators(model)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_convolution_gradients_of_larger_strides(data: st.DataObject) -> None:
    strides = data.draw(st.sampled_from([(2, 2), (3, 3), (2, 1), (1, 3), (4, 2)]))
    kernel = data.draw(st.tuples(*(st.integers(s, s + 5) for s in strides)))
    c, m, group = data.draw(st.sampled_from([(18, 18, 18), (17, 3, 1), (5, 17, 1), (32, 32, 16), (48, 96, 3)]))
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel] * 2
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    size = data.draw(st.tuples(st.integers(6, 8), st.integers(6, 8)))
    model = transposed(
        c,
        m,
        size,
        kernel,
        group,
        strides=strides,
        pads=pads,
        output_padding=extra,
        crop=data.draw(st.booleans()),
        then=data.draw(st.sampled_from(["Identity", "Add"])),
    )
    same(model, c, size)


@pytest.mark.parametrize(
    ("kernel", "kind"), [(3, "depthwise"), (3, "full"), (1, "full"), (7, "picture"), (3, "groups"), (1, "groups")]
)
@pytest.mark.parametrize("extra", [0, 1])
def test_strided_gradients_of_usual_networks_have_no_transposed_convolution(kernel: int, kind: str, extra: int) -> None:
    channels = {"depthwise": (32, 32, 32), "picture": (32, 3, 1), "full": (32, 48, 1), "groups": (32, 32, 4)}
    c, m, group = channels[kind]
    model = transposed(
        c, m, (7, 6), (kernel, kernel), group, strides=(2, 2), pads=(kernel // 2,) * 4, output_padding=(extra, extra)
    )
    same(model, c, (7, 6))
    assert "ConvTranspose" not in operators(model)


def test_what_is_cropped_off_is_not_computed() -> None:
    model = transposed(16, 16, (8, 8), (3, 3), group=16, strides=(2, 2), crop=True)
    same(model, 16, (8, 8))
    assert not {"ConvTranspose", "Slice"} & set(operators(model))


@pytest.mark.parametrize(
    "given_",
    [
        {"strides": (2, 1), "output_padding": (1, 0), "dilations": (2, 1)},
        {"strides": (4, 4)},
        {"strides": (2, 2), "pads": (3, 3, 3, 3)},
        {"group": 2},
        {"pads": (3, 3, 3, 3)},
    ],
    ids=["dilated", "gaps", "pads beyond the kernel", "groups", "pads beyond the kernel, stride 1"],
)
def test_what_conv_does_worse_or_not_at_all_stays(given_: dict[str, Any]) -> None:
    model = transposed(8, 8, (9, 9), (3, 3), **given_)
    same(model, 8, (9, 9))
    assert "ConvTranspose" in operators(model)


def gate(
    nodes: str,
    shape: tuple[str | int, ...] = ("rows", 40, 16, 16),
    arriving: str = "Add(g, g)",
    ceiling: float = 6.0,
) -> ir.Model:
    """``nodes`` define open from x; out = Where(open, the arriving gradient, 0). The constant six is ``ceiling``."""
    six = ceiling if np.isfinite(ceiling) else 6.0
    dims = ",".join(map(str, shape))
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    gate (float[{dims}] x, float[{dims}] g) => (float[{dims}] out)
    <float zero = {{0}}, float one = {{1}}, float six = {{{six!r}}}>
    {{
        {nodes}
        gg = {arriving}
        gated = Where(open, gg, zero)
        out = Add(gated, y)
    }}"""
    return parsed(text)


RELU = "y = Relu(x) open = Greater(y, zero)"
RELU6 = "y = Clip(x, zero, six) low = Greater(x, zero) high = Less(x, six) open = And(low, high)"


def points(rng: np.random.Generator, ceiling: float) -> Array:
    """Numbers of every magnitude down to the smallest normal ones, infinite ones, and those next to the corners."""
    x = 10.0 ** rng.uniform(-37, 38, size=(3, 40, 16, 16)) * rng.choice([-1, 1], size=(3, 40, 16, 16))
    corner = np.float32(ceiling if np.isfinite(ceiling) else 6)
    x[0, 0, :3, 0] = 0, -0.0, np.inf
    x[1, :20] = rng.uniform(-0.2, 1.2, size=(20, 16, 16)) * corner
    x[2, 7, :4, 3] = corner, np.nextafter(corner, np.float32(0)), np.nextafter(corner, np.float32(2e6)), -np.inf
    return np.asarray(x, np.float32)


@pytest.mark.parametrize("ceiling", [np.inf, 6.0, 1.0, 0.1, 20.3, 1e-3, 1e6])
def test_gates_are_open_or_closed_to_the_last_bit(ceiling: float) -> None:
    rng = np.random.default_rng(0)
    x = points(rng, ceiling)
    ceiling = float(np.float32(ceiling))
    g = rng.normal(size=x.shape).astype(np.float32)
    model = gate(RELU if np.isinf(ceiling) else RELU6, ceiling=ceiling)
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


def test_half_precision_stays() -> None:
    half = """<ir_version: 10, opset_import: ["": 18]>
    half (float16[rows, 16, 7, 7] x, float16[16, 16, 3, 3] w) => (float16[rows, 16, 14, 14] out)
    {
        y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)
        out = Add(y, y)
    }"""
    model = parsed(half)
    lower(model, "cpu")
    assert operators(model) == ["ConvTranspose", "Add"]


def test_cuda_runs_programs_as_they_are() -> None:
    model = transposed(4, 4, (9, 9), (3, 3))
    before = ir.to_proto(model).SerializeToString()
    lower(model, "cuda")
    assert ir.to_proto(model).SerializeToString() == before
