"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1 and 2).

``ReLU(sum_k alpha_k A_k)`` with ``alpha_k`` the mean over the places of the score's gradient at feature map k.
"""

from __future__ import annotations

from onnxplain.methods.activation_map import cam
from onnxplain.rows import Floats


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``alpha_k A_k``."""
    weights: Floats = gradients.mean(axis=1, keepdims=True)
    return weights * activations


METHOD = cam(
    "grad_cam",
    "where a layer's feature maps speak for the score, each weighted by its mean gradient",
    shares,
    "Selvaraju et al. 2017, arXiv:1610.02391",
)
