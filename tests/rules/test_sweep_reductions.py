"""Reductions and running sums against PyTorch in float64, over axes given, default, empty or unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.single_node import Node, Shapes, check, normal

Axes = tuple[int, ...]
Reduce = Callable[[torch.Tensor, Axes, bool], torch.Tensor]


def product(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep),
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceProd": product,
    "ReduceSumSquare": lambda x, axes, keep: (x * x).sum(axes, keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keep),
    "ReduceL2": lambda x, axes, keep: (x * x).sum(axes, keep).sqrt(),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keep),
}


@st.composite
def reductions(draw: st.DrawFn, /, operator: str) -> tuple[Node, Axes, bool]:
    """A node, the axes that it really reduces, keepdims. ReduceSum takes its axes as an input from opset 13 on."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
    rank = len(shape)
    axes = draw(st.lists(st.integers(0, rank - 1), unique=True, max_size=rank))
    spelled = [axis - rank if draw(st.booleans()) else axis for axis in axes]
    ways = ["constant", "input"] if axes else ["constant", "input", "absent"]
    given_as, noop = draw(st.sampled_from(ways)), draw(st.integers(0, 1))
    keep = 1 if given_as == "input" else draw(st.integers(0, 1))  # or the rank of the output could not be declared
    shapes: Shapes = draw(st.sampled_from(["static", "batch", "symbolic"]))
    x = normal(*shape)
    if operator == "ReduceLogSum":
        x = np.abs(x) + np.float32(0.5)
    inputs = {"x": x, "axes": None if given_as == "absent" else np.array(spelled, np.int64)}
    constants = ("axes",) if given_as == "constant" else ()
    node = Node(operator, inputs, {"keepdims": keep, "noop_with_empty_axes": noop}, shapes=shapes, constants=constants)
    return node, tuple(axes) if axes or noop else tuple(range(rank)), bool(keep)


@pytest.mark.parametrize("operator", REDUCTIONS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_reduction(operator: str, data: st.DataObject) -> None:
    node, axes, keep = data.draw(reductions(operator))

    def truth(x: torch.Tensor, *_: Any) -> torch.Tensor:
        return REDUCTIONS[operator](x, axes, keep) if axes else x.clone()

    # without axes noop_with_empty_axes means the identity to some, the operator on each element to others: see below
    if axes:
        check(node, truth, ["x"])


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"])
def test_no_axes_at_all(operator: str) -> None:
    inputs = {"x": normal(2, 3), "axes": np.array([], np.int64)}
    node = Node(operator, inputs, {"noop_with_empty_axes": 1}, constants=("axes",))
    check(node, lambda x, _: x.clone(), ["x"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    data=st.data(),
    exclusive=st.integers(0, 1),
    reverse=st.integers(0, 1),
    shapes=st.sampled_from(["static", "batch", "symbolic"]),
)
def test_cumsum(shape: Axes, data: st.DataObject, exclusive: int, reverse: int, shapes: Shapes) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))

    def truth(x: torch.Tensor, _: Any) -> torch.Tensor:
        x = x.flip(axis) if reverse else x
        y = x.cumsum(axis) - (x if exclusive else 0)
        return y.flip(axis) if reverse else y

    inputs = {"x": normal(*shape), "axis": np.array(axis)}
    node = Node("CumSum", inputs, {"exclusive": exclusive, "reverse": reverse}, constants=("axis",), shapes=shapes)
    check(node, truth, ["x"])
