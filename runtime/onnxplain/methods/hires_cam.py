"""HiResCAM (Draelos and Carin 2020, arXiv:2011.08891): ``ReLU(sum_k g_k * A_k)``, every place with its own gradient.

Signed (``relu=False``) and where one linear layer follows, the places sum to the score less its bias.
"""

from __future__ import annotations

from onnxplain.methods.activation_map import cam
from onnxplain.rows import Floats


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``g_k * A_k``."""
    return gradients * activations


METHOD = cam(
    "hires_cam",
    "a layer's activations times their own gradients: only places that the score was really made from",
    shares,
    "Draelos and Carin 2020, arXiv:2011.08891",
)
