"""Conv and ConvTranspose against PyTorch's autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxplain.artifact import gradient_name, seed_name
from onnxplain_convert import differentiate
from tests.rules.single_node import ROUNDED, Node, Shapes, assert_close, check, normal, operators, run_onnxruntime

F = torch.nn.functional
ALL = ("x", "w", "b")


def conv(**attributes: Any) -> Any:
    """Conv in PyTorch, its padding made explicit."""
    strides, dilations = attributes.get("strides"), attributes.get("dilations")
    group, pads = attributes.get("group", 1), attributes.get("pads")

    def truth(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        n = x.ndim - 2
        s, d = strides or [1] * n, dilations or [1] * n
        begin, end = (pads[:n], pads[n:]) if pads else same_pads(attributes.get("auto_pad", ""), x.shape, w.shape, s, d)
        x = F.pad(x, [p for k in reversed(range(n)) for p in (begin[k], end[k])])
        return torch.convolution(x, w, b, s, [0] * n, d, False, [0] * n, group)

    return truth


def same_pads(auto_pad: str, x: Any, w: Any, s: Any, d: Any) -> tuple[list[int], list[int]]:
    n = len(x) - 2
    if not auto_pad.startswith("SAME"):
        return [0] * n, [0] * n
    total = [max(0, (-(-x[k + 2] // s[k]) - 1) * s[k] + (w[k + 2] - 1) * d[k] + 1 - x[k + 2]) for k in range(n)]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


@st.composite
def convolutions(draw: st.DrawFn) -> Node:
    n = draw(st.integers(1, 3))
    group, per_group, out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    kernel, strides, dilations = each(1, 3), each(1, 3), each(1, 3)
    attributes: dict[str, Any] = {"group": group, "strides": strides, "dilations": dilations}
    padding = draw(st.sampled_from(["pads", "none", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if padding == "pads":
        attributes["pads"] = [*each(0, 3), *each(0, 3)]
    elif padding != "none":
        attributes["auto_pad"] = padding
    sizes = [e + extra for e, extra in zip(extents, each(0, 4), strict=True)]
    x = normal(draw(st.integers(1, 2)), group * per_group, *sizes)
    w = normal(group * out, per_group, *kernel)
    shapes: Shapes = draw(st.sampled_from(["static", "batch", "symbolic"]))
    return Node("Conv", {"x": x, "w": w, "b": normal(group * out)}, attributes, shapes=shapes)


@settings(max_examples=150, deadline=None)
@given(convolutions())
def test_conv(node: Node) -> None:
    attributes = node.attributes
    # ONNX Runtime: "Dilation not supported for AutoPadType::SAME_UPPER or AutoPadType::SAME_LOWER"
    runs = max(attributes["dilations"]) == 1 or not attributes.get("auto_pad", "").startswith("SAME")
    check(node, conv(**attributes), ALL, rounded=ROUNDED if runs else None)


@pytest.mark.parametrize("shapes", ["static", "batch"])
def test_common_conv_is_one_conv_transpose(shapes: Shapes) -> None:
    """Symmetric padding, stride 2, the weight as it is: nothing but the transposed convolution."""
    inputs = {"x": normal(2, 3, 8, 9), "w": normal(4, 3, 3, 3)}
    attributes = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    node = Node("Conv", inputs, attributes, constants=("w",), shapes=shapes)
    model = check(node, conv(**attributes), ["x"])
    assert operators(model) == ["Conv", "ConvTranspose"]
    assert model.graph.node[1].input[1] == "w"


def conv_transpose(**attributes: Any) -> Any:
    """ConvTranspose in PyTorch: the full result, then cropped (or filled with the bias) as the operator's text says."""

    def truth(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        n = x.ndim - 2
        s, d = attributes.get("strides") or [1] * n, attributes.get("dilations") or [1] * n
        extra, auto_pad = attributes.get("output_padding") or [0] * n, attributes.get("auto_pad", "")
        full = torch.convolution(x, w, None, s, [0] * n, d, True, [0] * n, attributes.get("group", 1))
        full = F.pad(full, [p for k in reversed(range(n)) for p in (0, extra[k])])
        begin, end = [0] * n, [0] * n
        shape = attributes.get("output_shape")
        if auto_pad.startswith("SAME") and not shape:
            shape = [x.shape[k + 2] * s[k] for k in range(n)]
        if shape:
            total = [full.shape[k + 2] - shape[k] for k in range(n)]
            begin = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
            end = [t - p for t, p in zip(total, begin, strict=True)]
        elif attributes.get("pads"):
            begin, end = attributes["pads"][:n], attributes["pads"][n:]
        y = F.pad(full, [-p for k in reversed(range(n)) for p in (begin[k], end[k])])
        return y + b.reshape(-1, *[1] * n)

    return truth


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Node:
    n = draw(st.integers(1, 3))
    group, per_group, out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    kernel, strides, dilations, sizes = each(1, 3), each(1, 3), each(1, 3), each(1, 4)
    attributes: dict[str, Any] = {"group": group, "strides": strides, "dilations": dilations}
    most = [max(s, d) - 1 for s, d in zip(strides, dilations, strict=True)]
    extra = [draw(st.integers(0, m)) for m in most]
    if any(extra):
        attributes["output_padding"] = extra
    spans = zip(sizes, strides, kernel, dilations, extra, strict=True)
    full = [(i - 1) * s + (k - 1) * d + 1 + e for i, s, k, d, e in spans]
    padding = draw(st.sampled_from(["pads", "none", "VALID", "SAME_UPPER", "SAME_LOWER", "output_shape"]))
    if padding == "pads":
        begin = [draw(st.integers(0, min(2, f - e - 1))) for f, e in zip(full, extra, strict=True)]
        end = [draw(st.integers(0, min(2, f - 1 - p))) for f, p in zip(full, begin, strict=True)]
        attributes["pads"] = [*begin, *end]
    elif padding == "output_shape":  # onnx infers no shape where it is below the input's
        attributes["output_shape"] = [draw(st.integers(i, max(i, f))) for i, f in zip(sizes, full, strict=True)]
        if draw(st.booleans()):
            attributes["auto_pad"] = "SAME_UPPER"
    elif padding == "VALID":
        attributes["auto_pad"] = padding
    elif padding != "none" and all(f - e >= i * s for f, e, i, s in zip(full, extra, sizes, strides, strict=True)):
        attributes["auto_pad"] = padding
        attributes.pop("output_padding", None)  # onnx infers another shape than ONNX Runtime computes
    x = normal(draw(st.integers(1, 2)), group * per_group, *sizes)
    w = normal(group * per_group, out, *kernel)
    shapes: Shapes = draw(st.sampled_from(["static", "batch", "symbolic"]))
    return Node("ConvTranspose", {"x": x, "w": w, "b": normal(group * out)}, attributes, shapes=shapes)


@settings(max_examples=150, deadline=None)
@given(transposed_convolutions())
def test_conv_transpose(node: Node) -> None:
    attributes = node.attributes
    # ONNX Runtime: "output_padding may be too large for stride", though below the dilation, which the operator allows
    pairs = zip(attributes.get("output_padding", ()), attributes["strides"], strict=False)
    runs = all(extra < stride for extra, stride in pairs)
    check(node, conv_transpose(**attributes), ALL, rounded=ROUNDED if runs else None)


@pytest.mark.parametrize("shapes", ["static", "batch"])
@pytest.mark.parametrize(("strides", "dilations", "pads"), [(1, 1, 0), (2, 1, 1), (1, 2, 1), (3, 2, 2)])
def test_col2im(shapes: Shapes, strides: int, dilations: int, pads: int) -> None:
    image, block, c = (7, 8), (2, 3), 2
    counts = [(i + 2 * pads - (k - 1) * dilations - 1) // strides + 1 for i, k in zip(image, block, strict=True)]
    x = normal(2, c * block[0] * block[1], counts[0] * counts[1])
    inputs = {"x": x, "image_shape": np.array(image), "block_shape": np.array(block)}
    attributes = {"strides": [strides] * 2, "dilations": [dilations] * 2, "pads": [pads] * 4}
    for constants in (("image_shape", "block_shape"), ()):
        node = Node("Col2Im", inputs, attributes, constants=constants, shapes=shapes)
        check(node, lambda x, *_: F.fold(x, image, block, dilations, pads, strides), ["x"])


@pytest.mark.parametrize(
    ("node", "truth"),
    [
        (
            "Conv <strides = [2, 2], pads = [1, 1, 1, 1], group = 2> (x, w)",
            lambda x, w: F.conv2d(x, w, None, 2, 1, 1, 2),
        ),
        ('Conv <auto_pad = "SAME_UPPER"> (x, w2)', lambda x, _: F.conv2d(x, torch.ones(3, 4, 3, 3).to(x), padding=1)),
        (
            "ConvTranspose <strides = [2, 2], group = 2> (x, w)",
            lambda x, w: F.conv_transpose2d(x, w, None, 2, groups=2),
        ),
        ("MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", lambda x, _: F.max_pool2d(x, 2)),
        ("AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)", lambda x, _: F.avg_pool2d(x, 2)),
        ("GlobalAveragePool (x)", lambda x, _: x.mean((2, 3), keepdim=True)),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_rank_not_known(node: str, truth: Any) -> None:
    """Behind a reshape whose target is fed, shape inference knows nothing; the weight and the attributes say enough."""
    constants = "float one = {1.0}, int64[4] kernel = {3, 4, 3, 3}"
    inputs = "float[k] flat, int64[r] shape, float[4, 2, 3, 3] w"
    body = f"{{ x = Reshape(flat, shape) w2 = Expand(one, kernel) y = {node} }}"
    text = f'<ir_version: 10, opset_import: ["": 21]> g ({inputs}) => (float[a, b, c, d] y) <{constants}> {body}'
    model = differentiate(onnx.parser.parse_model(text), ["flat"])
    x, w = torch.tensor(normal(2, 4, 6, 8), dtype=torch.float64, requires_grad=True), normal(4, 2, 3, 3)
    y = truth(x, torch.tensor(w, dtype=torch.float64))
    g = normal(*y.shape, seed=2)
    (want,) = torch.autograd.grad(y, x, torch.tensor(g, dtype=torch.float64))
    feeds = {"flat": x.detach().numpy().ravel().astype(np.float32), "shape": np.array([2, 4, 6, 8]), "w": w}
    found = run_onnxruntime(model, {**feeds, seed_name("y"): g}, [gradient_name("gradient", "flat")])
    assert_close(found[gradient_name("gradient", "flat")], want.numpy().ravel(), ROUNDED, node)
