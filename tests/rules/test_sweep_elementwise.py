"""Elementwise operators against PyTorch in float64, over shapes that broadcast in every position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.rules import single_node
from tests.rules.graphs import EXACT, ROUNDED, distance, gradients, model
from tests.rules.single_node import Node, Shapes, check, normal

F = torch.nn.functional
Array = NDArray[Any]
Move = Callable[[Array], Array]

SHAPES: st.SearchStrategy[Shapes] = st.sampled_from(["static", "batch", "symbolic"])
SIDES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


def anywhere(x: Array) -> Array:
    return x


def positive(x: Array) -> Array:
    """Away from zero, where the derivatives of Log, Sqrt and Div are too large for float32."""
    return np.abs(x) + np.float32(0.5)


def signed(x: Array) -> Array:
    return np.where(x < 0, -1, 1).astype(np.float32) * positive(x)


def inside(x: Array) -> Array:
    """Within (-0.9, 0.9), for the inverse functions."""
    return np.tanh(x) * np.float32(0.9)


def beyond(x: Array) -> Array:
    return positive(x) + np.float32(0.7)


def off_half(x: Array) -> Array:
    """At least 0.1 from every half: from the corners of all gates below."""
    return (np.round(x * 2) / 2 + np.float32(0.25) + np.tanh(x) * np.float32(0.15)).astype(np.float32)


UNARY: dict[str, tuple[Callable[..., torch.Tensor], Move, dict[str, Any]]] = {
    "Abs": (torch.abs, anywhere, {}),
    "Acos": (torch.acos, inside, {}),
    "Acosh": (torch.acosh, beyond, {}),
    "Asin": (torch.asin, inside, {}),
    "Asinh": (torch.asinh, anywhere, {}),
    "Atan": (torch.atan, anywhere, {}),
    "Atanh": (torch.atanh, inside, {}),
    "Celu": (lambda x: F.celu(x, 0.75), off_half, {"alpha": 0.75}),
    "Cos": (torch.cos, anywhere, {}),
    "Cosh": (torch.cosh, anywhere, {}),
    "Elu": (lambda x: F.elu(x, 0.75), off_half, {"alpha": 0.75}),
    "Erf": (torch.erf, anywhere, {}),
    "Exp": (torch.exp, anywhere, {}),
    "Gelu": (lambda x: F.gelu(x, approximate="tanh"), anywhere, {"approximate": "tanh"}),
    "HardSigmoid": (lambda x: (0.25 * x + 0.5).clamp(0, 1), off_half, {"alpha": 0.25}),
    "HardSwish": (F.hardswish, lambda x: off_half(3 * x), {}),
    "Identity": (torch.clone, anywhere, {}),
    "LeakyRelu": (lambda x: F.leaky_relu(x, 0.125), off_half, {"alpha": 0.125}),
    "Log": (torch.log, positive, {}),
    "Mish": (F.mish, anywhere, {}),
    "Neg": (torch.neg, anywhere, {}),
    "Reciprocal": (torch.reciprocal, signed, {}),
    "Relu": (F.relu, off_half, {}),
    "Selu": (lambda x: 0.5 * torch.where(x > 0, x, 1.5 * (x.exp() - 1)), off_half, {"alpha": 1.5, "gamma": 0.5}),
    "Shrink": (lambda x: x - x.clamp(-0.5, 0.5), off_half, {"lambd": 0.5, "bias": 0.5}),
    "Sigmoid": (torch.sigmoid, anywhere, {}),
    "Sin": (torch.sin, anywhere, {}),
    "Sinh": (torch.sinh, anywhere, {}),
    "Softplus": (F.softplus, anywhere, {}),
    "Softsign": (F.softsign, anywhere, {}),
    "Sqrt": (torch.sqrt, positive, {}),
    "Tan": (torch.tan, inside, {}),
    "Tanh": (torch.tanh, anywhere, {}),
    "ThresholdedRelu": (lambda x: F.threshold(x, 0.5, 0.0), off_half, {"alpha": 0.5}),
}


ALONE = {"Softsign": (1,)}
"""onnx's reference implementation does not take a scalar."""

ROUNDED_ONCE = {"Erf": 1e-7, "Gelu": 1e-7}
"""The rule's own constants (2 / sqrt(pi)) are float32 in a float32 model."""


@pytest.mark.parametrize("operator", UNARY)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(shape=SIDES, shapes=SHAPES)
def test_of_one(operator: str, shape: tuple[int, ...], shapes: Shapes) -> None:
    truth, domain, attributes = UNARY[operator]
    x = np.asarray(domain(normal(*(shape or ALONE.get(operator, shape)))), np.float32)
    check(
        Node(operator, {"x": x}, attributes, shapes=shapes),
        truth,
        ["x"],
        exact=ROUNDED_ONCE.get(operator, single_node.EXACT),
    )


BINARY: dict[str, tuple[Callable[..., torch.Tensor], Move, Move, dict[str, Any]]] = {
    "Add": (torch.add, anywhere, anywhere, {}),
    "Sub": (torch.sub, anywhere, anywhere, {}),
    "Mul": (torch.mul, anywhere, anywhere, {}),
    "Div": (torch.div, anywhere, signed, {}),
    "Pow": (torch.pow, positive, anywhere, {}),
    "Mod": (torch.fmod, beyond, lambda x: positive(x) * np.float32(0.37), {"fmod": 1}),
    "Max": (torch.maximum, anywhere, anywhere, {}),
    "Min": (torch.minimum, anywhere, anywhere, {}),
    "Mean": (lambda x, w: (x + w) / 2, anywhere, anywhere, {}),
    "Sum": (torch.add, anywhere, anywhere, {}),
}

PAIRS = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3)


@pytest.mark.parametrize("operator", BINARY)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(pair=PAIRS, shapes=SHAPES, constant=st.booleans(), turned=st.booleans())
def test_of_two(operator: str, pair: Any, shapes: Shapes, constant: bool, turned: bool) -> None:
    """The second a weight or not; the one whose shape is unknown first or last."""
    truth, first, second, attributes = BINARY[operator]
    shapes_of = pair.input_shapes
    a, b = (np.asarray(v, np.float32) for v in (first(normal(*shapes_of[0])), second(normal(*shapes_of[1], seed=1))))
    inputs = {"w": a, "x": b} if turned else {"x": a, "w": b}
    constants = ("w",) if constant else ()
    node = Node(operator, inputs, attributes, shapes=shapes, constants=constants)
    same = a.shape == b.shape or operator != "Mean"  # onnx's reference implementation adds in place
    check(node, truth, ["x"] if constant else ["x", "w"], exact=single_node.EXACT if same else None)


TRIPLES = hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=1, max_side=3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(triple=TRIPLES, shapes=SHAPES)
def test_where(triple: Any, shapes: Shapes) -> None:
    cond, x, w = (normal(*shape, seed=k) for k, shape in enumerate(triple.input_shapes))
    check(Node("Where", {"c": np.asarray(cond > 0), "x": x, "w": w}, {}, shapes=shapes), torch.where, ["x", "w"])


@pytest.mark.parametrize("operator", ["Sum", "Max", "Min", "Mean"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(triple=TRIPLES, shapes=SHAPES)
def test_of_several(operator: str, triple: Any, shapes: Shapes) -> None:
    x, w, v = (normal(*shape, seed=k) for k, shape in enumerate(triple.input_shapes))
    truth: dict[str, Callable[..., torch.Tensor]] = {
        "Sum": lambda x, w, v: x + w + v,
        "Mean": lambda x, w, v: (x + w + v) / 3,
        "Max": lambda x, w, v: torch.maximum(torch.maximum(x, w), v),
        "Min": lambda x, w, v: torch.minimum(torch.minimum(x, w), v),
    }
    node = Node(operator, {"x": x, "w": w, "v": v}, {}, shapes=shapes)
    # onnx's reference implementation of Mean adds in place
    check(node, truth[operator], ["x", "w", "v"], exact=None if operator == "Mean" else single_node.EXACT)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shape=SIDES, shapes=SHAPES, low=st.sampled_from([None, -0.5]), high=st.sampled_from([None, 0.5]))
def test_clip(shape: tuple[int, ...], shapes: Shapes, low: float | None, high: float | None) -> None:
    bounds = {k: None if v is None else np.asarray(v, np.float32) for k, v in (("low", low), ("high", high))}
    node = Node("Clip", {"x": np.asarray(off_half(normal(*shape)), np.float32), **bounds}, {}, shapes=shapes)
    check(node, lambda x, *_: x.clamp(low, high) if low or high else x.clone(), ["x"])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=3), data=st.data(), shapes=SHAPES)
def test_prelu(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    """The slope broadcasts to x, never the other way."""
    kept = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    slope = [n if k else 1 for n, k in zip(shape, kept, strict=True)][data.draw(st.integers(0, len(shape))) :]
    node = Node("PRelu", {"x": off_half(normal(*shape)), "slope": normal(*slope, seed=1)}, {}, shapes=shapes)
    check(node, lambda x, slope: torch.where(x > 0, x, slope * x), ["x", "slope"])


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=4), data=st.data(), shapes=SHAPES)
def test_softmax(operator: str, shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    truth = {"Softmax": torch.softmax, "LogSoftmax": torch.log_softmax}[operator]
    check(Node(operator, {"x": normal(*shape)}, {"axis": axis}, shapes=shapes), lambda x: truth(x, axis), ["x"])


@pytest.mark.parametrize(
    ("body", "truth"),
    [
        ("y = Mul (x, x)", lambda x: x * x),
        ("y = Sub (x, x)", lambda x: x - x),
        ("a = Sin (x) y = Sum (a, x, a)", lambda x: 2 * torch.sin(x) + x),
        ("a, b = Split <axis = 0, num_outputs = 2> (x) y = MatMul (a, x)", lambda x: x[:2] @ x),
        ("y = Where (c, x, x)", lambda x: x.clone()),
    ],
)
def test_the_same_input_twice(body: str, truth: Callable[[torch.Tensor], torch.Tensor]) -> None:
    proto = model(f"same (float[4, 4] x, bool[4] c) => (float[m, 4] y) {{ {body} }}")
    x = normal(4, 4)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = truth(leaf)
    seed = normal(*y.shape, seed=1)
    (want,) = torch.autograd.grad(y, leaf, torch.tensor(seed, dtype=torch.float64))
    found = gradients(proto, {"x": x, "c": np.array([True, False, True, True])}, seed, ["x"])
    assert distance(found.exact["x"], want.numpy()) < EXACT
    assert distance(found.rounded["x"], want.numpy()) < ROUNDED
