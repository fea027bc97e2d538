"""Guided Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, section 3.2).

Guided backpropagation, and of it what lies where Grad-CAM looks: their product.
"""

from __future__ import annotations

import numpy as np

from onnxplain.methods import grad_cam
from onnxplain.methods.activation_map import NEEDS, OPTIONS, layer_map, round_, taken
from onnxplain.methods.method import Ask, Method, Plan, Reduced
from onnxplain.methods.upsampling import at_inputs
from onnxplain.rows import Round, Rows


def plan(ask: Ask) -> Plan:
    """One row under either rule set, in the same round."""
    guided, layer = yield [Round(ask.purpose("guided"), Rows.table([1.0])), round_(ask)]
    view, activations, gradients = taken(ask, layer)
    shares = grad_cam.shares(activations, gradients)
    map_ = layer_map(ask, view, shares)
    cams = at_inputs(map_, ask.manifest, ask.tensors, ask.options["interpolation"])
    maps = {tensor: np.asarray(guided.moments[tensor].mean, np.float64) * cam for tensor, cam in cams.items()}
    return Reduced(maps, extras={"layer_map": map_, **({"maps": view.put(shares)} if ask.options["per_map"] else {})})


METHOD = Method(
    "guided_grad_cam",
    "guided backpropagation times the Grad-CAM map: sharp, and about the class",
    plan,
    ("gradient", "guided"),
    OPTIONS,
    paper="Selvaraju et al. 2017, arXiv:1610.02391",
    needs=f"{NEEDS}, and activations",
)
