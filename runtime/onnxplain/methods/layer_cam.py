"""LayerCAM (Jiang et al. 2021, IEEE TIP 30): ``ReLU(sum_k ReLU(g_k) * A_k)``; made for early layers too."""

from __future__ import annotations

import numpy as np

from onnxplain.methods.activation_map import cam
from onnxplain.rows import Floats


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``ReLU(g_k) * A_k``."""
    return np.maximum(gradients, 0.0) * activations


METHOD = cam(
    "layer_cam",
    "a layer's activations times their own positive gradients: fine maps from early layers",
    shares,
    "Jiang et al. 2021, IEEE TIP 30 (LayerCAM)",
)
