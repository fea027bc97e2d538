"""Normalisation against PyTorch's autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxplain_convert.grad.rules import GRADIENT
from onnxplain_convert.grad.walk import differentiate_graph
from tests.rules.single_node import Node, Shapes, check, normal

F = torch.nn.functional
SHAPES: Sequence[Shapes] = ("static", "batch", "symbolic")
EPSILON = 2.0**-10
"""Exact as a float32 attribute, and large enough to be seen."""

CANCELS = 1e-4
"""Of the largest entry in float32: differences of means, divided by a small deviation."""


def sizes(rank: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(1, 4)] * rank)


def positive(*shape: int) -> Any:
    return np.abs(normal(*shape)) + np.float32(0.5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3).flatmap(lambda k: sizes(2 + k)), st.sampled_from(SHAPES))
def test_batch_normalization(size: tuple[int, ...], shapes: Shapes) -> None:
    c = size[1]
    inputs = {"x": normal(*size), "scale": normal(c), "b": normal(c, seed=1), "mean": normal(c, seed=2)}
    node = Node("BatchNormalization", {**inputs, "var": positive(c)}, {"epsilon": EPSILON}, shapes=shapes)

    def truth(x: torch.Tensor, scale: Any, b: Any, mean: Any, var: Any) -> torch.Tensor:
        return per_channel((x - along(mean, x)) / torch.sqrt(along(var, x) + EPSILON), scale, b)

    check(node, truth, ["x", "scale", "b", "mean", "var"])


def along(v: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return v.reshape(-1, *[1] * (x.ndim - 2))


def per_channel(hat: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return hat * along(scale, hat) + along(bias, hat)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3).flatmap(lambda k: sizes(2 + k)), st.sampled_from(SHAPES))
def test_batch_normalization_in_training_mode(size: tuple[int, ...], shapes: Shapes) -> None:
    """All three outputs explained at once; the running statistics are of the batch's population variance."""
    c, size = size[1], (size[0] + 1, *size[1:])
    inputs = {"x": normal(*size), "scale": normal(c), "b": normal(c, seed=1), "mean": normal(c, seed=2)}
    attributes = {"epsilon": EPSILON, "training_mode": 1, "momentum": 0.75}
    outputs = ("y", "running_mean", "running_var")
    node = Node("BatchNormalization", {**inputs, "var": positive(c)}, attributes, outputs, shapes=shapes)

    def truth(x: torch.Tensor, scale: Any, b: Any, mean: Any, var: Any) -> tuple[torch.Tensor, ...]:
        axes = [a for a in range(x.ndim) if a != 1]
        mu, v = x.mean(axes), x.var(axes, correction=0)
        y = per_channel((x - along(mu, x)) / torch.sqrt(along(v, x) + EPSILON), scale, b)
        return y, 0.75 * mean + 0.25 * mu, 0.75 * var + 0.25 * v

    check(node, truth, ["x", "scale", "b", "mean", "var"], explained=outputs, rounded=CANCELS)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(SHAPES))
def test_layer_normalization(data: st.DataObject, shapes: Shapes) -> None:
    """Every axis, with and without bias, and all three outputs."""
    size = data.draw(sizes(data.draw(st.integers(1, 4))))
    axis = data.draw(st.integers(-len(size), len(size) - 1))
    behind = size[axis:]
    inputs = {"x": normal(*size), "scale": normal(*behind)}
    if data.draw(st.booleans()):
        inputs["b"] = normal(*behind, seed=1)
    outputs = data.draw(st.sampled_from([("y",), ("y", "mean", "inv")]))
    attributes = {"axis": axis, "epsilon": EPSILON}
    node = Node("LayerNormalization", inputs, attributes, outputs, shapes=shapes)

    def truth(x: torch.Tensor, scale: torch.Tensor, b: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        axes = list(range(axis % x.ndim, x.ndim))
        mean = x.mean(axes, keepdim=True)
        inv = 1 / torch.sqrt(x.var(axes, correction=0, keepdim=True) + EPSILON)
        y = F.layer_norm(x, behind, scale, b, EPSILON)
        return y, mean, inv

    check(node, truth, list(inputs), explained=outputs, rounded=CANCELS)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3).flatmap(lambda k: sizes(2 + k)), st.sampled_from(SHAPES))
def test_instance_normalization(size: tuple[int, ...], shapes: Shapes) -> None:
    size = (*size[:-1], size[-1] + 1)
    inputs = {"x": normal(*size), "scale": normal(size[1]), "b": normal(size[1], seed=1)}
    node = Node("InstanceNormalization", inputs, {"epsilon": EPSILON}, shapes=shapes)
    check(node, lambda x, s, b: F.instance_norm(x, None, None, s, b, eps=EPSILON), list(inputs), rounded=CANCELS)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([18, 21]), st.sampled_from(SHAPES))
def test_group_normalization(data: st.DataObject, opset: int, shapes: Shapes) -> None:
    """Until opset 20 scale and bias are per group, from 21 on per channel."""
    groups, per_group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    behind = data.draw(sizes(data.draw(st.integers(1, 3))))
    n = groups if opset == 18 else groups * per_group
    inputs = {"x": normal(2, groups * per_group, *behind), "scale": normal(n), "b": normal(n, seed=1)}
    attributes = {"num_groups": groups, "epsilon": EPSILON}
    node = Node("GroupNormalization", inputs, attributes, shapes=shapes, opset=opset)

    def truth(x: torch.Tensor, scale: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        repeats = per_group if opset == 18 else 1
        scale, b = (v.repeat_interleave(repeats) for v in (scale, b))
        return F.group_norm(x, groups, scale, b, EPSILON)

    if opset == 21:
        check(node, truth, list(inputs), rounded=CANCELS)
    else:  # onnx's checker calls it deprecated and its reference implementation takes it for the newer one
        model = ir.from_proto(node.model())
        differentiate_graph(model, list(inputs), ["y"], [GRADIENT])
        check(node, truth, list(inputs), exact=None, rounded=CANCELS, model=ir.to_proto(model))


@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(1, 2), st.sampled_from(SHAPES))
def test_lp_normalization(data: st.DataObject, p: int, shapes: Shapes) -> None:
    size = data.draw(sizes(data.draw(st.integers(1, 4))))
    axis = data.draw(st.integers(-len(size), len(size) - 1))
    node = Node("LpNormalization", {"x": normal(*size)}, {"axis": axis, "p": p}, shapes=shapes)
    check(node, lambda x: x / x.norm(p, axis, keepdim=True), ["x"], rounded=CANCELS)


def test_lp_normalization_at_the_origin() -> None:
    x = np.zeros((2, 3), np.float32)
    x[1] = [3, 0, 4]
    node = Node("LpNormalization", {"x": x}, {"axis": 1})
    check(node, lambda x: torch.cat([x[:1] * 0, x[1:] / x[1:].norm(2, 1, keepdim=True)]), ["x"])


@pytest.mark.parametrize("axes", [None, [0, 2, 3], [1], [-1, 1]])
@pytest.mark.parametrize("shapes", SHAPES)
def test_mean_variance_normalization(axes: list[int] | None, shapes: Shapes) -> None:
    node = Node("MeanVarianceNormalization", {"x": normal(2, 3, 4, 5)}, {"axes": axes} if axes else {}, shapes=shapes)

    def truth(x: torch.Tensor) -> torch.Tensor:
        over = axes or [0, 2, 3]
        std = x.var(over, correction=0, keepdim=True).sqrt()
        return (x - x.mean(over, keepdim=True)) / (std + 1e-9)

    check(node, truth, ["x"], rounded=CANCELS)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("shapes", ["static", "batch"])
def test_local_response_normalization(size: int, shapes: Shapes) -> None:
    attributes = {"size": size, "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    node = Node("LRN", {"x": normal(2, 6, 3, 2)}, attributes, shapes=shapes)

    def truth(x: torch.Tensor) -> torch.Tensor:
        square, low = x * x, (size - 1) // 2
        channels = range(x.shape[1])
        sums = [square[:, max(0, c - low) : c - low + size].sum(1) for c in channels]
        return x / (2 + 0.5 / size * torch.stack(sums, 1)) ** 0.75

    runs = size % 2 == 1  # ONNX Runtime has it for odd sizes only
    check(node, truth, ["x"], exact=1e-7, rounded=CANCELS if runs else None)  # alpha / size is a float32 number
