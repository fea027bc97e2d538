"""Eigen-CAM (Muhammad and Yeasin 2020, arXiv:2008.00299): a layer's first principal component, whatever the class.

The activations as a matrix (places, maps) = U S V^T, projected on the first right singular vector: ``A v``. They are
not centred, as in the paper. A singular vector's sign is free: the one that gives the map a positive sum is taken.
"""

from __future__ import annotations

import numpy as np

from onnxplain.errors import BadRequest
from onnxplain.methods.activation_map import NEEDS, OPTIONS, finished, layer_of, round_, threshold, view_of
from onnxplain.methods.method import Ask, Method, Plan
from onnxplain.rows import Floats


def shares(activations: Floats) -> Floats:
    """``v_k A_k``."""
    first = np.linalg.svd(activations, full_matrices=False)[0][:, :1]
    return first * activations * (1.0 if (first.T @ activations).sum() >= 0 else -1.0)


def plan(ask: Ask) -> Plan:
    """One row, forward only."""
    (outcome,) = yield [round_(ask, gradients=False)]
    ((_, values),) = outcome.taps.items()
    view = view_of(ask, values.shape[1:])
    activations = view.take(values[0])
    if not np.isfinite(activations).all():
        raise BadRequest(f"layer {layer_of(ask).name!r} has activations that are not finite: they have no components")
    return finished(ask, view, shares(activations))


METHOD = Method(
    "eigen_cam",
    "what a layer's feature maps have most in common: not about any class, and without gradients",
    plan,
    (),
    (*OPTIONS, threshold(0.15)),
    paper="Muhammad and Yeasin 2020, arXiv:2008.00299",
    needs=NEEDS,
)
