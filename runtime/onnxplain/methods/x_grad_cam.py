"""XGrad-CAM (Fu et al. 2020, arXiv:2008.02312, eq. 8).

``ReLU(sum_k w_k A_k)`` with ``w_k = sum_ij g_ij A_ij / sum_ab A_ab``: the mean gradient weighted by the activations. A
map whose activations sum to zero has no such mean and the weight zero.
"""

from __future__ import annotations

import numpy as np

from onnxplain.methods.activation_map import cam
from onnxplain.rows import Floats


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``w_k A_k``."""
    total: Floats = activations.sum(axis=1, keepdims=True)
    above: Floats = (gradients * activations).sum(axis=1, keepdims=True)
    weights: Floats = np.divide(above, total, out=np.zeros_like(above), where=total != 0)
    return weights * activations


METHOD = cam(
    "x_grad_cam",
    "Grad-CAM with each map's gradients averaged by its activations, so that weights add up to the score's change",
    shares,
    "Fu et al. 2020, arXiv:2008.02312",
)
