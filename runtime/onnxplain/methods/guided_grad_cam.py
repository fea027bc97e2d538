"""Guided Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, section 3.2).

Guided backpropagation, and of it what lies where Grad-CAM looks: their product.
"""

from __future__ import annotations

import numpy as np

from onnxplain.methods.feature_map import at_inputs
from onnxplain.methods.grad_cam import OPTIONS, layer_map, round_
from onnxplain.methods.method import Ask, Method, Plan, Reduced
from onnxplain.rows import Round, Rows


def plan(ask: Ask) -> Plan:
    """One row under either rule set, in the same round."""
    guided, layer = yield [Round(ask.purpose("guided"), Rows.table([1.0])), round_(ask)]
    map_ = layer_map(ask, layer)
    cams = at_inputs(map_, ask.manifest, ask.tensors, ask.options["interpolation"])
    maps = {tensor: np.asarray(guided.moments[tensor].mean, np.float64) * cam for tensor, cam in cams.items()}
    return Reduced(maps, extras={"layer_map": map_})


METHOD = Method(
    "guided_grad_cam",
    "guided backpropagation times the Grad-CAM map: sharp, and about the class",
    plan,
    ("gradient", "guided"),
    OPTIONS,
    paper="Selvaraju et al. 2017, arXiv:1610.02391",
    needs="a layer with spatial axes (convolutions) and activations",
)
