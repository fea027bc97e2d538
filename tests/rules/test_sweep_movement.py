"""Operators that move elements against PyTorch's indexing in float64, their parameters constant or computed."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rules.single_node import Node, Shapes, check, normal

SHAPES: st.SearchStrategy[Shapes] = st.sampled_from(["static", "batch", "symbolic"])
SIDES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)
STEPS = st.sampled_from([-3, -2, -1, 1, 2, 3])


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def maybe(constant: bool, *names: str) -> tuple[str, ...]:
    return names if constant else ()


@settings(max_examples=120, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES, constant=st.booleans())
def test_slice(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes, constant: bool) -> None:
    """Starts and ends within, negative and out of range, steps of both signs, axes in any order."""
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    starts, ends, steps = [], [], []
    for axis in axes:
        step = data.draw(STEPS)
        # going down, numpy and ONNX do not agree about a start before the first element
        starts.append(data.draw(st.integers(-6 if step > 0 else -shape[axis], 6)))
        ends.append(data.draw(st.integers(-6, 6) | st.just(2**31 - 1 if step > 0 else -(2**31))))
        steps.append(step)
    index: list[Any] = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        start, end = (v + size if v < 0 else v for v in (start, end))
        first, last = (0, size) if step > 0 else (-1, size - 1)
        places = np.arange(min(max(start, 0), last), min(max(end, first), last if step < 0 else size), step)
        index[axis] = torch.from_numpy(places)

    def truth(x: torch.Tensor, *_: Any) -> torch.Tensor:
        for axis, places in enumerate(index):
            x = x if isinstance(places, slice) else x.index_select(axis, places)
        return x

    spelled = [axis - len(shape) if data.draw(st.booleans()) else axis for axis in axes]
    inputs = {"x": normal(*shape), "s": ints(*starts), "e": ints(*ends), "a": ints(*spelled), "t": ints(*steps)}
    check(Node("Slice", inputs, {}, constants=maybe(constant, "s", "e", "a", "t"), shapes=shapes), truth, ["x"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES, mode=st.sampled_from(["constant", "edge", "reflect", "wrap"]))
def test_pad(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes, mode: str) -> None:
    """Both sides of some axes; negative pads crop. The truth indexes where numpy says that each element is from."""
    axes = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape), unique=True))
    lows = {"constant": -1, "edge": 0, "reflect": 0, "wrap": 0}
    sides = {}
    for axis in axes:
        most = {"constant": 3, "edge": 3, "reflect": shape[axis] - 1, "wrap": shape[axis]}[mode]
        low = lows[mode] if shape[axis] > 2 else 0
        sides[axis] = [data.draw(st.integers(low, most)) for _ in range(2)]
    constant = data.draw(st.booleans())

    def truth(x: torch.Tensor, *_: Any) -> torch.Tensor:
        for axis, (begin, end) in sides.items():
            size = x.shape[axis]
            places = np.arange(size)[max(-begin, 0) : size - max(-end, 0)]
            x = x.index_select(axis, torch.from_numpy(places))
            grown = [max(begin, 0), max(end, 0)]
            if mode == "constant":
                pair = [0, 0] * (x.ndim - 1 - axis) + grown
                x = torch.nn.functional.pad(x, pair, value=0.0)
            else:
                where = np.pad(np.arange(x.shape[axis]), grown, mode=mode)  # type: ignore[call-overload]
                x = x.index_select(axis, torch.from_numpy(where))
        return x

    pads = ints(*(sides[a][0] for a in axes), *(sides[a][1] for a in axes))
    inputs = {"x": normal(*shape), "pads": pads, "value": None, "axes": ints(*axes)}
    node = Node("Pad", inputs, {"mode": mode}, constants=maybe(constant, "pads", "axes"), shapes=shapes)
    check(node, truth, ["x"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES, constant=st.booleans())
def test_gather(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes, constant: bool) -> None:
    """Negative and repeated indices of any rank."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    indices = data.draw(hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=2, max_side=4),
                                   elements=st.integers(-size, size - 1)))  # fmt: skip

    def truth(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        k = axis % x.ndim
        found = x.index_select(k, (i % size).reshape([-1]))
        return found.reshape([*x.shape[:k], *i.shape, *x.shape[k + 1 :]])

    inputs = {"x": normal(*shape), "i": np.asarray(indices)}
    check(Node("Gather", inputs, {"axis": axis}, constants=maybe(constant, "i"), shapes=shapes), truth, ["x"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES)
def test_gather_elements(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    wanted = [data.draw(st.integers(1, n + (2 if k == axis % len(shape) else 0))) for k, n in enumerate(shape)]
    elements = st.integers(-shape[axis], shape[axis] - 1)
    indices = data.draw(hnp.arrays(np.int64, tuple(wanted), elements=elements))
    node = Node("GatherElements", {"x": normal(*shape), "i": indices}, {"axis": axis}, shapes=shapes)
    check(node, lambda x, i: x.gather(axis, i % shape[axis]), ["x"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES, constant=st.booleans())
def test_tile(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes, constant: bool) -> None:
    repeats = data.draw(st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)))
    node = Node("Tile", {"x": normal(*shape), "n": ints(*repeats)}, {}, constants=maybe(constant, "n"), shapes=shapes)
    check(node, lambda x, _: x.tile(repeats), ["x"])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES)
def test_concat(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    """Of one to four tensors, some empty, some weights."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 3), max_size=3))
    inputs = {"x": normal(*shape)}
    for k, length in enumerate(lengths):
        inputs[f"w{k}"] = normal(*(length if j == axis % len(shape) else n for j, n in enumerate(shape)), seed=k)
    constants = tuple(name for name in inputs if name != "x" and data.draw(st.booleans()))
    node = Node("Concat", inputs, {"axis": axis}, constants=constants, shapes=shapes)
    check(node, lambda *xs: torch.cat(xs, axis), [name for name in inputs if name not in constants])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES)
def test_split(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    """Into given or equal parts, any of them explained."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    size = shape[axis]
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
    lengths = [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)]
    equal = data.draw(st.booleans()) and size > 1
    if equal:
        n = data.draw(st.integers(2, size))
        part = -(-size // n)
        lengths = [min(part, size - part * k) for k in range(n)]
        if min(lengths) < 1:  # the parts before have taken all
            return
    outputs = tuple(f"y{k}" for k in range(len(lengths)))
    explained = data.draw(st.lists(st.sampled_from(outputs), min_size=1, unique=True))
    inputs = {"x": normal(*shape), "n": None if equal else ints(*lengths)}
    attributes = {"axis": axis, **({"num_outputs": len(lengths)} if equal else {})}
    node = Node("Split", inputs, attributes, outputs, constants=maybe(not equal, "n"), shapes=shapes)
    check(node, lambda x, *_: torch.split(x, lengths, axis), ["x"], sorted(explained))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES)
def test_transpose(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    perm = data.draw(st.none() | st.permutations(range(len(shape))))
    attributes = {} if perm is None else {"perm": perm}
    order = perm or list(reversed(range(len(shape))))
    check(Node("Transpose", {"x": normal(*shape)}, attributes, shapes=shapes), lambda x: x.permute(order), ["x"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pair=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=1, max_side=3), shapes=SHAPES)
def test_expand(pair: Any, shapes: Shapes) -> None:
    """Both ways: an axis of the target may be 1 where that of x is not."""
    inputs = {"x": normal(*pair.input_shapes[0]), "s": ints(*pair.input_shapes[1])}
    node = Node("Expand", inputs, {}, constants=("s",), shapes=shapes)
    check(node, lambda x, _: x.expand(pair.result_shape).clone(), ["x"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES, upper=st.integers(0, 1))
def test_trilu(shape: tuple[int, ...], data: st.DataObject, shapes: Shapes, upper: int) -> None:
    shape = (2, *shape)
    k = data.draw(st.integers(-4, 4))
    truth = torch.triu if upper else torch.tril
    inputs = {"x": normal(*shape), "k": np.array(k)}
    check(Node("Trilu", inputs, {"upper": upper}, constants=("k",), shapes=shapes), lambda x, _: truth(x, k), ["x"])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@settings(max_examples=15, deadline=None, derandomize=True)
@given(shape=SIDES, data=st.data(), shapes=SHAPES)
def test_scatter_elements(reduction: str, shape: tuple[int, ...], data: st.DataObject, shapes: Shapes) -> None:
    """Into different places; the table of onnx's cases has repeated ones."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    wanted = [data.draw(st.integers(1, n)) for n in shape]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    places = np.arange(shape[axis]).reshape([-1] + [1] * (len(shape) - 1 - axis))
    order = rng.permuted(np.broadcast_to(places, shape), axis=axis)
    indices = np.ascontiguousarray(order[tuple(slice(n) for n in wanted)])
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}

    def truth(x: torch.Tensor, i: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        if reduction == "none":
            return x.scatter(axis, i, updates)
        return x.scatter_reduce(axis, i, updates, names[reduction])

    inputs = {"x": normal(*shape), "i": indices, "u": normal(*wanted, seed=1)}
    node = Node("ScatterElements", inputs, {"axis": axis, "reduction": reduction}, shapes=shapes)
    check(node, truth, ["x", "u"])
