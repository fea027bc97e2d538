"""Gradients of gradients: the result of differentiate, differentiated again, against PyTorch's double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from onnxplain.artifact import gradient_name, seed_name
from onnxplain_convert import differentiate
from tests.reference import Reference
from tests.rules.single_node import EXACT, Node, assert_close, normal

F = torch.nn.functional
IMAGE = normal(2, 4, 6, 6)
SCALE = np.abs(normal(4)) + np.float32(1)
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
EPSILON = 2.0**-10
X_W_B = {"x": IMAGE, "w": normal(4, 2, 3, 3), "b": normal(4)}
X_S_B = {"x": IMAGE, "scale": SCALE, "b": normal(4)}
STATISTICS = {"mean": normal(4, seed=2), "var": np.abs(normal(4, seed=3)) + np.float32(1)}
SIZES = {"x": IMAGE, "roi": None, "scales": None, "sizes": np.array([2, 4, 9, 4])}


def batch_norm(x: torch.Tensor, scale: Any, b: Any, mean: Any, var: Any) -> torch.Tensor:
    hat = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + EPSILON)
    return torch.add(hat * scale[:, None, None], b[:, None, None])


CASES: list[tuple[Node, Callable[..., torch.Tensor]]] = [
    (
        Node("Conv", X_W_B, {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2),
    ),
    (
        Node("Conv", X_W_B, {"group": 2, "strides": [2, 2], "pads": [0, 0, 1, 1]}),
        lambda x, w, b: F.conv2d(F.pad(x, [0, 1, 0, 1]), w, b, 2, 0, 1, 2),
    ),
    (
        Node("ConvTranspose", X_W_B, {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        lambda x, w, b: F.conv_transpose2d(x, w, b.repeat(1), 2, 1, 1, 2),
    ),
    (Node("MaxPool", {"x": IMAGE}, POOL), lambda x: F.max_pool2d(x, 3, 2, 1)),
    (Node("GlobalMaxPool", {"x": IMAGE}, {}), lambda x: F.adaptive_max_pool2d(x, 1)),
    (Node("AveragePool", {"x": IMAGE}, POOL), lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    (Node("AveragePool", {"x": IMAGE}, {"kernel_shape": [2, 2], "strides": [2, 2]}), lambda x: F.avg_pool2d(x, 2)),
    (Node("LpPool", {"x": IMAGE}, {"kernel_shape": [2, 2], "p": 3}), lambda x: F.lp_pool2d(x.abs(), 3, 2, 1)),
    (Node("BatchNormalization", {**X_S_B, **STATISTICS}, {"epsilon": EPSILON}), batch_norm),
    (
        Node("LayerNormalization", {"x": IMAGE, "scale": normal(6), "b": normal(6)}, {"epsilon": EPSILON}),
        lambda x, s, b: F.layer_norm(x, (6,), s, b, EPSILON),
    ),
    (
        Node("InstanceNormalization", X_S_B, {"epsilon": EPSILON}),
        lambda x, s, b: F.instance_norm(x, None, None, s, b, eps=EPSILON),
    ),
    (
        Node("GroupNormalization", X_S_B, {"epsilon": EPSILON, "num_groups": 2}),
        lambda x, s, b: F.group_norm(x, 2, s, b, EPSILON),
    ),
    (Node("LpNormalization", {"x": IMAGE}, {}), lambda x: x / x.norm(2, -1, keepdim=True)),
    (
        Node("Resize", SIZES, {"mode": "linear"}, constants=("sizes",)),
        lambda x: F.interpolate(x, size=(9, 4), mode="bilinear"),
    ),
    (Node("DepthToSpace", {"x": IMAGE}, {"blocksize": 2, "mode": "CRD"}), lambda x: F.pixel_shuffle(x, 2)),
]


@pytest.mark.parametrize(("node", "truth"), CASES, ids=lambda case: case.operator if isinstance(case, Node) else "")
def test_twice(node: Node, truth: Callable[..., torch.Tensor]) -> None:
    """<r, gradient> differentiated with respect to the floating-point inputs and the seed."""
    given = {k: v for k, v in node.inputs.items() if v is not None}
    names = [name for name, value in given.items() if value.dtype.kind == "f"]
    wrt = [torch.tensor(given[name], dtype=torch.float64, requires_grad=True) for name in names]
    y = truth(*wrt)
    g = torch.tensor(normal(*y.shape, seed=4), dtype=torch.float64, requires_grad=True)
    firsts = torch.autograd.grad(y, wrt, g, create_graph=True)
    rs = {name: normal(*first.shape, seed=5) for name, first in zip(names, firsts, strict=True)}
    cotangents = [torch.tensor(r, dtype=torch.float64) for r in rs.values()]
    dependent = [k for k, first in enumerate(firsts) if first.requires_grad]
    seconds = torch.autograd.grad(
        [firsts[k] for k in dependent], [*wrt, g], [cotangents[k] for k in dependent], allow_unused=True
    )

    seed = seed_name("y")
    once = node.differentiated(names)
    twice = differentiate(once, [*names, seed], [gradient_name("gradient", name) for name in names])
    results = [gradient_name("gradient", name) for name in (*names, seed)]
    outputs = [output.name for output in twice.graph.output][-len(results) :]
    feeds = {**node.feeds(), seed: g.detach().numpy()}
    feeds |= {seed_name(gradient_name("gradient", name)): r for name, r in rs.items()}
    found = Reference(twice)(feeds, outputs)
    for name, output, second in zip(results, outputs, seconds, strict=True):
        want = np.zeros(found[output].shape) if second is None else second.numpy()  # type: ignore[redundant-expr]
        assert_close(found[output], want, EXACT, f"{name} of the gradient of {node.operator}")
