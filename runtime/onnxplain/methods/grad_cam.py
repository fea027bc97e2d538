"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1 and 2).

``ReLU(sum_k alpha_k A_k)`` with ``alpha_k`` the mean over the places of the score's gradient at feature map k.
"""

from __future__ import annotations

import numpy as np

from onnxplain.methods.feature_map import at_inputs, default_layer
from onnxplain.methods.method import Ask, Method, Option, Plan, Reduced
from onnxplain.rows import Floats, Outcome, Round, Rows

OPTIONS = (
    Option("layer", "layer", None, "whose feature maps are weighted; none: the last layer with spatial axes"),
    Option("relu", "bool", True, "keep only what speaks for the score, as in the paper (off: the signed map)"),
    Option(
        "interpolation",
        "choice",
        "bilinear",
        "how the map comes to the input's size (between pixel centres, corners not aligned)",
        choices=("bilinear", "nearest"),
    ),
)


def round_(ask: Ask) -> Round:
    """The layer's activations and gradients at the input itself."""
    layer = ask.layer or default_layer(ask.manifest, ask.output)
    return Round(ask.purpose("gradient", (layer.tensor,), sums=False), Rows.table([1.0]))


def layer_map(ask: Ask, outcome: Outcome) -> Floats:
    """The map at the layer's resolution, (space...) in float64."""
    ((activations, gradients),) = [
        (np.asarray(outcome.taps[name][0], np.float64), np.asarray(outcome.tap_gradients[name][0], np.float64))
        for name in outcome.taps
    ]
    weights = gradients.mean(axis=tuple(range(1, gradients.ndim)))
    combined = np.tensordot(weights, activations, (0, 0))
    return np.maximum(combined, 0.0) if ask.options["relu"] else combined


def plan(ask: Ask) -> Plan:
    """One row; the backward pass need not go below the layer."""
    (outcome,) = yield [round_(ask)]
    map_ = layer_map(ask, outcome)
    maps = at_inputs(map_, ask.manifest, ask.tensors, ask.options["interpolation"])
    return Reduced(maps, extras={"layer_map": map_})


METHOD = Method(
    "grad_cam",
    "where a layer's feature maps speak for the score, each weighted by its mean gradient",
    plan,
    ("gradient",),
    OPTIONS,
    paper="Selvaraju et al. 2017, arXiv:1610.02391",
    needs="a layer with spatial axes (convolutions)",
)
