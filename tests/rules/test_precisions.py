"""The rules of convolution, pooling, normalisation and resampling in float16 and float64 models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxplain.artifact import gradient_name, seed_name
from tests.reference import Reference
from tests.rules.single_node import Node, assert_close, normal

IMAGE = normal(2, 4, 6, 6)
FOUR = {"scale": np.abs(normal(4)) + np.float32(1), "b": normal(4, seed=1)}
STATISTICS = {"mean": normal(4, seed=2), "var": np.abs(normal(4, seed=3)) + np.float32(1)}
WEIGHT = normal(4, 2, 3, 3)
PADDED = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}
SCALES = np.array([1, 1, 2, 1.5], np.float32)

NODES = [
    Node("Conv", {"x": IMAGE, "w": WEIGHT, "b": FOUR["b"]}, {"group": 2, "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    Node("ConvTranspose", {"x": IMAGE, "w": WEIGHT}, {"group": 2, "strides": [2, 2], "output_padding": [1, 0]}),
    Node("MaxPool", {"x": IMAGE}, PADDED),
    Node("AveragePool", {"x": IMAGE}, PADDED),
    Node("AveragePool", {"x": IMAGE}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Node("AveragePool", {"x": IMAGE}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Node("LpPool", {"x": IMAGE}, {**PADDED, "p": 3}),
    Node("GlobalAveragePool", {"x": IMAGE}, {}),
    Node("GlobalMaxPool", {"x": IMAGE}, {}),
    Node("BatchNormalization", {"x": IMAGE, **FOUR, **STATISTICS}, {}),
    Node("BatchNormalization", {"x": IMAGE, **FOUR, **STATISTICS}, {"training_mode": 1}, ("y", "m", "v")),
    Node("LayerNormalization", {"x": IMAGE, "scale": normal(6), "b": normal(6, seed=1)}, {}, ("y", "mean", "inv")),
    Node("InstanceNormalization", {"x": IMAGE, **FOUR}, {}),
    Node("GroupNormalization", {"x": IMAGE, **FOUR}, {"num_groups": 2}),
    Node("LpNormalization", {"x": IMAGE}, {}),
    Node("LRN", {"x": IMAGE}, {"size": 3}),
    Node("Resize", {"x": IMAGE, "roi": None, "scales": SCALES}, {"mode": "linear"}, constants=("scales",)),
    Node("Resize", {"x": IMAGE, "roi": None, "scales": np.ceil(SCALES)}, {}, constants=("scales",)),
    Node("DepthToSpace", {"x": IMAGE}, {"blocksize": 2, "mode": "CRD"}),
    Node("SpaceToDepth", {"x": IMAGE}, {"blocksize": 2}),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float64", 1e-7)])
@pytest.mark.parametrize("node", NODES, ids=lambda node: f"{node.operator}-{len(node.attributes)}")
def test_another_precision(node: Node, dtype: str, tolerance: float) -> None:
    """A valid model with the gradients of the float32 model, up to the rounding of the constants in it."""
    wrt = [name for name in node.inputs if name not in ("roi", "scales")]
    # numbers that every precision has
    values = {k: v if v is None else v.astype(np.float16).astype(np.float32) for k, v in node.inputs.items()}
    narrow = replace(node, inputs=values)
    other = replace(node, inputs={k: v.astype(dtype) if k in wrt and v is not None else v for k, v in values.items()})
    y = Reference(narrow.model())(narrow.feeds(), ["y"])["y"]
    seeds = {seed_name("y"): normal(*y.shape, seed=9)}
    names = [gradient_name("gradient", name) for name in wrt]
    expected, found = (Reference(n.differentiated(wrt))({**n.feeds(), **seeds}, names) for n in (narrow, other))
    for name in names:
        assert_close(found[name], expected[name], tolerance, f"{name} of {other}")
