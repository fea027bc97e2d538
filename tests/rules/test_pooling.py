"""Pooling against PyTorch's autograd: its own pooling where it has the form, else windows made of torch's unfold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.reference.windows import Windows
from tests.rules.single_node import EXACT, Node, Shapes, check, normal, operators

F = torch.nn.functional
Truth = Callable[[torch.Tensor], torch.Tensor]


def windows(x: torch.Tensor, attributes: dict[str, Any]) -> Windows:
    names = ("strides", "dilations", "pads", "auto_pad")
    given = {name: attributes.get(name) for name in names}
    return Windows.of(x.shape[2:], attributes["kernel_shape"], **given, ceil=bool(attributes.get("ceil_mode")))


def maximum(attributes: dict[str, Any]) -> Truth:
    def truth(x: torch.Tensor) -> torch.Tensor:
        w = windows(x, attributes)
        return w.view(w.pad(x, -torch.inf, -torch.inf)).max(-1).values

    return truth


def average(attributes: dict[str, Any]) -> Truth:
    def truth(x: torch.Tensor) -> torch.Tensor:
        w = windows(x, attributes)
        inside = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype)
        counted = w.pad(inside, float(attributes.get("count_include_pad", 0)), 0.0)
        return w.view(w.pad(x, 0.0, 0.0)).sum(-1) / w.view(counted).sum(-1)

    return truth


def norm(attributes: dict[str, Any]) -> Truth:
    p = attributes.get("p", 2)

    def truth(x: torch.Tensor) -> torch.Tensor:
        w = windows(x, attributes)
        return w.view(w.pad(x, 0.0, 0.0)).abs().pow(p).sum(-1).pow(1 / p)

    return truth


@st.composite
def pools(draw: st.DrawFn, /, operator: str, **more: st.SearchStrategy[Any]) -> Node:
    n = draw(st.integers(1, 3))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    kernel, strides = each(1, 3), each(1, 3)
    padding = draw(st.sampled_from(["pads", "symmetric", "none", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    # ONNX Runtime: "Dilation not supported for AutoPadType::SAME_UPPER or AutoPadType::SAME_LOWER"
    dilations = [1] * n if padding.startswith("SAME") else each(1, 2)
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
    attributes |= {name: draw(strategy) for name, strategy in more.items()}
    if padding in ("pads", "symmetric"):  # below the kernel's size, or a window could be all padding
        begin = [draw(st.integers(0, k - 1)) for k in kernel]
        end = begin if padding == "symmetric" else [draw(st.integers(0, k - 1)) for k in kernel]
        attributes["pads"] = [*begin, *end]
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    elif padding == "none":
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    else:
        attributes["auto_pad"] = padding
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [e + extra for e, extra in zip(extents, each(0, 5), strict=True)]
    if padding.startswith("SAME"):  # ONNX Runtime refuses the negative padding that this would ask for
        assume(all(k >= s for k, s in zip(kernel, strides, strict=True)))
    x = normal(draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes)
    if attributes.get("ceil_mode") and (attributes.get("count_include_pad") or max(dilations) > 1):
        # shape inference counts a window that would start in the end padding; here canonicalise cannot always mend that
        w = windows(torch.tensor(x), attributes)
        spans = zip(sizes, w.begin, w.end, extents, strides, w.out, strict=True)
        assume(all(-(-(i + b + e - k) // s) + 1 == o for i, b, e, k, s, o in spans))
    shapes: Shapes = draw(st.sampled_from(["static", "batch", "symbolic"]))
    return Node(operator, {"x": x}, attributes, shapes=shapes)


@settings(max_examples=120, deadline=None)
@given(pools("MaxPool"), st.booleans())
def test_max_pool(node: Node, few_values: bool) -> None:
    """With few different values there are ties."""
    if few_values:
        inputs = {"x": np.sign(node.feeds()["x"])}
        node = Node("MaxPool", inputs, node.attributes, shapes=node.shapes)
    check(node, maximum(dict(node.attributes)), ["x"])


@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_with_indices(storage_order: int) -> None:
    """The node's own indices may count columns first; the gradient's may not."""
    attributes = {"kernel_shape": [3, 2], "strides": [1, 2], "storage_order": storage_order}
    node = Node("MaxPool", {"x": normal(2, 3, 5, 6)}, attributes, outputs=("y", "indices"))
    model = check(node, lambda x: F.max_pool2d(x, (3, 2), (1, 2)), ["x"])
    assert operators(model).count("MaxPool") == 1 + storage_order


@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
@pytest.mark.parametrize("output_shape", [None, [2, 3, 4, 6], [2, 3, 5, 7]])
def test_max_unpool(shapes: Shapes, output_shape: list[int] | None) -> None:
    """With a larger output_shape PyTorch and ONNX Runtime count the indices in it, onnx's reference does not."""
    x, indices = F.max_pool2d(torch.tensor(normal(2, 3, 4, 6)), 2, return_indices=True)
    size = output_shape[2:] if output_shape else [4, 6]
    flat = indices + torch.arange(6).reshape(2, 3, 1, 1) * size[0] * size[1]
    inputs = {"x": x.numpy(), "indices": flat.numpy()}
    if output_shape:
        inputs["output_shape"] = np.array(output_shape)
    node = Node("MaxUnpool", inputs, {"kernel_shape": [2, 2], "strides": [2, 2]}, shapes=shapes)

    def truth(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return F.max_unpool2d(x, indices, [2, 2], output_size=size)

    check(node, truth, ["x"], exact=EXACT if size == [4, 6] else None)


@settings(max_examples=150, deadline=None)
@given(pools("AveragePool", count_include_pad=st.integers(0, 1)))
def test_average_pool(node: Node) -> None:
    check(node, average(dict(node.attributes)), ["x"])


@settings(max_examples=60, deadline=None)
@given(pools("LpPool", p=st.integers(1, 3)))
def test_lp_pool(node: Node) -> None:
    check(node, norm(dict(node.attributes)), ["x"])


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, ["Div", "Resize"]),
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, ["Div", "AveragePool", "Mul"]),
    ],
)
@pytest.mark.parametrize("shapes", ["static", "batch"])
def test_common_average_pools_are_short(attributes: dict[str, Any], expected: list[str], shapes: Shapes) -> None:
    node = Node("AveragePool", {"x": normal(2, 3, 8, 6)}, attributes, shapes=shapes)
    model = check(node, average(attributes), ["x"])
    assert operators(model) == ["AveragePool", *expected]


@pytest.mark.parametrize("size", [(5,), (4, 3), (2, 3, 2), (1, 1)])
@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
class TestGlobalPools:
    def test_average(self, size: tuple[int, ...], shapes: Shapes) -> None:
        node = Node("GlobalAveragePool", {"x": normal(2, 3, *size)}, {}, shapes=shapes)
        check(node, lambda x: x.mean(list(range(2, x.ndim)), keepdim=True), ["x"])

    @pytest.mark.parametrize("ties", [False, True])
    def test_maximum(self, size: tuple[int, ...], shapes: Shapes, ties: bool) -> None:
        x = normal(2, 3, *size)
        node = Node("GlobalMaxPool", {"x": np.round(x) if ties else x}, {}, shapes=shapes)
        pool = [F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d][len(size) - 1]
        check(node, lambda x: pool(x, [1] * len(size)), ["x"])

    @pytest.mark.parametrize("p", [1, 2, 3])
    def test_norm(self, size: tuple[int, ...], shapes: Shapes, p: int) -> None:
        node = Node("GlobalLpPool", {"x": normal(2, 3, *size)}, {"p": p}, shapes=shapes)
        # onnx has no reference implementation of it
        check(node, lambda x: x.abs().pow(p).sum(list(range(2, x.ndim)), keepdim=True).pow(1 / p), ["x"], exact=None)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [0, 0, 2, 1]])
@pytest.mark.parametrize("shapes", ["static", "batch"])
@pytest.mark.parametrize("operator", ["AveragePool", "LpPool"])
def test_one_window_larger_than_the_picture(operator: str, pads: list[int], ceil_mode: int, shapes: Shapes) -> None:
    """transformers' EfficientNet pools 7 x 7 elements with a kernel of 2560 x 2560: the gradient must not grow so."""
    kernel = [900, 900] if ceil_mode and operator == "AveragePool" else [5 + pads[2], 4 + pads[3]]
    attributes = {"kernel_shape": kernel, "strides": kernel, "pads": pads, "ceil_mode": ceil_mode}
    truth = average(attributes) if operator == "AveragePool" else norm(attributes)
    model = check(Node(operator, {"x": normal(2, 3, 5, 4)}, attributes, shapes=shapes), truth, ["x"])
    assert "ConvTranspose" not in operators(model)
    assert model.ByteSize() < 10_000
