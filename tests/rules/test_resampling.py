"""Resize, DepthToSpace and SpaceToDepth.

Resize is linear, so its gradient is right for every input if it is the transpose of what the forward pass makes of the
identity: that is checked in ONNX Runtime for every mode, and against PyTorch's autograd where PyTorch has the mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onnxplain.artifact import gradient_name, seed_name
from tests.rules.single_node import (
    EXACT,
    ROUNDED,
    Array,
    Node,
    Shapes,
    assert_close,
    check,
    normal,
    operators,
    run_onnxruntime,
)

F = torch.nn.functional
COORDINATES = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
]  # fmt: skip
NEAREST = [{"nearest_mode": mode} for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")]
LINEAR: list[dict[str, Any]] = [{}, {"antialias": 1}, {"antialias": 1, "exclude_outside": 1}]
CUBIC: list[dict[str, Any]] = [*LINEAR, {"exclude_outside": 1}, {"cubic_coeff_a": -0.5}]
FORMS = [
    *itertools.product(["nearest"], COORDINATES, NEAREST),
    *itertools.product(["linear"], COORDINATES, LINEAR),
    *itertools.product(["cubic"], COORDINATES, CUBIC),
]
TARGETS = [(8, 15), (2, 3), (7, 4), (1, 9)]
"""From (4, 5): twice and three times, smaller, mixed, and down to one element."""


def resize_node(x: Array, attributes: Mapping[str, Any], shapes: Shapes = "static", **parameters: Any) -> Node:
    types = {"roi": np.float32, "scales": np.float32, "sizes": np.int64}
    inputs: dict[str, Array | None] = {"x": x}
    for name, kind in types.items():
        inputs[name] = np.asarray(parameters[name], kind) if name in parameters else None
    while inputs[list(inputs)[-1]] is None:
        inputs.popitem()
    constants = tuple(name for name in types if inputs.get(name) is not None)
    return Node("Resize", inputs, attributes, constants=constants, shapes=shapes)


def assert_transposed(node: Node) -> list[str]:
    """The gradient of the node is the transpose of its forward pass, both in ONNX Runtime; its operators."""
    model = node.differentiated(["x"])
    x = node.feeds()["x"]
    identity = np.eye(x.size, dtype=np.float32).reshape(x.size, *x.shape)
    forward = node.model()
    parameters = {k: v for k, v in node.feeds().items() if k != "x"}
    columns = [run_onnxruntime(forward, {"x": e, **parameters}, ["y"])["y"] for e in identity]
    if node.attributes.get("extrapolation_value"):  # what is left where x is zero
        nothing = run_onnxruntime(forward, {"x": np.zeros_like(x), **parameters}, ["y"])["y"]
        columns = [column - nothing for column in columns]
    g = normal(*columns[0].shape, seed=3)
    want = np.array([np.sum(column * g, dtype=np.float64) for column in columns]).reshape(x.shape)
    name = gradient_name("gradient", "x")
    found = run_onnxruntime(model, {**node.feeds(), seed_name("y"): g}, [name])[name]
    assert_close(found, want, ROUNDED, str(node))
    return operators(model)


@pytest.mark.parametrize(("mode", "coordinates", "more"), FORMS, ids=str)
def test_every_mode(mode: str, coordinates: str, more: dict[str, Any]) -> None:
    x = normal(1, 1, 4, 5)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, **more}
    roi: dict[str, Any] = {}
    if coordinates == "tf_crop_and_resize":  # reaches outside on one side
        roi, attributes["extrapolation_value"] = {"roi": [0, 0, 0.1, -0.2, 1, 1, 0.9, 1.1]}, 3.5
    for height, width in TARGETS:
        assert_transposed(resize_node(x, attributes, sizes=[1, 1, height, width], **roi))
        scales = [1, 1, height / 4 + 0.04, width / 5 + 0.03]
        assert_transposed(resize_node(x, attributes, scales=scales, **roi))


@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
@pytest.mark.parametrize(
    "parameters", [{"scales": [1, 1, 2, 3]}, {"sizes": [2, 2, 8, 15]}, {"scales": [1, 1, 0.6, 1.7]}]
)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_symbolic_shapes(shapes: Shapes, parameters: dict[str, Any], mode: str) -> None:
    assert_transposed(resize_node(normal(2, 2, 4, 5), {"mode": mode}, shapes, **parameters))


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("axes", "sizes"), [([2, 3], [7, 8]), ([3, 2], [6, 11]), ([2, 3], [3, 3]), ([2, 3], [9, 10])])
def test_keeping_the_aspect_ratio(policy: str, mode: str, axes: list[int], sizes: list[int]) -> None:
    attributes = {"mode": mode, "keep_aspect_ratio_policy": policy, "axes": axes}
    node = resize_node(normal(1, 2, 4, 5), attributes, sizes=sizes)
    assert_transposed(node)
    assert_transposed(replace(node, constants=(), shapes="symbolic"))


@pytest.mark.parametrize(
    ("shape", "attributes", "parameters"),
    [
        ((5,), {"mode": "nearest"}, {"scales": [1.7]}),
        ((4, 5), {"mode": "cubic"}, {"scales": [0.7, 1.5]}),
        ((2, 4, 5), {"mode": "linear"}, {"sizes": [2, 7, 3]}),
        ((1, 2, 3, 4, 5), {"mode": "linear"}, {"scales": [1, 1, 2, 0.6, 1.3]}),
        ((1, 2, 3, 4, 5), {"mode": "nearest"}, {"scales": [1, 1, 2, 3, 1]}),
        ((2, 3, 2, 2), {"mode": "nearest"}, {"scales": [2, 1.5, 1, 2]}),
        ((1, 4, 5, 2), {"mode": "linear"}, {"scales": [1, 1.6, 0.7, 1]}),
        ((1, 2, 4, 5), {"mode": "linear", "axes": [3, 2]}, {"scales": [1.6, 0.7]}),
        ((1, 2, 4, 5), {"mode": "linear", "axes": [-1]}, {"sizes": [9]}),
        ((1, 2, 4, 5), {"mode": "nearest", "axes": [1, 3]}, {"sizes": [4, 7]}),
    ],
    ids=str,
)
def test_other_ranks_and_axes(shape: tuple[int, ...], attributes: Any, parameters: Any) -> None:
    assert_transposed(resize_node(normal(*shape), attributes, **parameters))


def test_scales_of_a_fed_input() -> None:
    node = resize_node(normal(1, 1, 4, 5), {"mode": "linear"}, scales=[1, 1, 1.6, 0.7])
    assert_transposed(replace(node, constants=()))


@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
@pytest.mark.parametrize(
    ("coordinates", "rounding"), [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")], ids=str
)
def test_whole_nearest_factors_are_sums(shapes: Shapes, coordinates: str, rounding: str) -> None:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    node = resize_node(normal(2, 3, 4, 5), attributes, shapes, scales=[1, 1, 2, 3])
    model = check(node, lambda x, *_: F.interpolate(x, scale_factor=(2, 3), mode="nearest"), ["x"])
    assert operators(model) == ["Resize", "AveragePool", "Mul"]


@pytest.mark.parametrize("size", TARGETS)
@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {}),
        ({"mode": "nearest", "nearest_mode": "round_prefer_ceil"}, {"mode": "nearest-exact"}),
        ({"mode": "linear", "coordinate_transformation_mode": "half_pixel"}, {"mode": "bilinear"}),
        (
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            {"mode": "bilinear", "align_corners": True},
        ),
        ({"mode": "cubic", "coordinate_transformation_mode": "half_pixel"}, {"mode": "bicubic"}),
        (
            {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
            {"mode": "bicubic", "align_corners": True},
        ),
    ],
    ids=str,
)
def test_against_pytorch(size: tuple[int, int], attributes: dict[str, Any], options: dict[str, Any]) -> None:
    node = resize_node(normal(2, 3, 4, 5), attributes, sizes=[2, 3, *size])
    exact = 1e-6 if attributes["mode"] == "cubic" else EXACT  # onnx's reference has its coefficients in float32
    check(node, lambda x, *_: F.interpolate(x, size=size, **options), ["x"], exact=exact)


@pytest.mark.parametrize("shapes", ["static", "batch", "symbolic"])
@pytest.mark.parametrize("block", [1, 2, 3])
class TestDepthAndSpace:
    @pytest.mark.parametrize("mode", ["DCR", "CRD"])
    def test_depth_to_space(self, block: int, shapes: Shapes, mode: str) -> None:
        node = Node(
            "DepthToSpace", {"x": normal(2, 2 * block**2, 3, 4)}, {"blocksize": block, "mode": mode}, shapes=shapes
        )

        def truth(x: torch.Tensor) -> torch.Tensor:
            if mode == "DCR":
                x = x.reshape(2, block**2, 2, 3, 4).transpose(1, 2).reshape(x.shape)
            return F.pixel_shuffle(x, block)

        check(node, truth, ["x"])

    def test_space_to_depth(self, block: int, shapes: Shapes) -> None:
        node = Node("SpaceToDepth", {"x": normal(2, 2, 3 * block, 4 * block)}, {"blocksize": block}, shapes=shapes)

        def truth(x: torch.Tensor) -> torch.Tensor:
            return F.pixel_unshuffle(x, block).reshape(2, 2, block**2, 3, 4).transpose(1, 2).reshape(2, -1, 3, 4)

        check(node, truth, ["x"])
