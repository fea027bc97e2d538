"""Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063, eqs. 10, 14 and 19).

``ReLU(sum_k w_k A_k)`` with ``w_k = sum_ij alpha_ij ReLU(g_ij)``. With ``Y = exp(S)`` and S piecewise linear in the
layer the derivatives of Y are ``e^S g``, ``e^S g^2`` and ``e^S g^3``, so that
``alpha_ij = g_ij^2 / (2 g_ij^2 + g_ij^3 sum_ab A_ab) = 1 / (2 + g_ij sum_ab A_ab)``.
The ReLU leaves only places with g > 0, and e^S scales the whole map: alpha is taken there alone, e^S is left out. The
authors' code also divides alpha by its sum over a map, which no equation of the paper does; it is not done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxplain.methods.activation_map import NEEDS, OPTIONS, finished, layer_of, round_, taken, threshold
from onnxplain.methods.linearity import curved_behind
from onnxplain.methods.method import Ask, Method, Option, Plan
from onnxplain.rows import Floats

DERIVATIVES = Option(
    "derivatives",
    "choice",
    "closed_form",
    "second and third derivatives: from the first, exact where the score is piecewise linear in the layer",
    choices=("closed_form",),
)


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``w_k A_k``."""
    total: Floats = activations.sum(axis=1, keepdims=True)
    positive = np.maximum(gradients, 0.0)
    weights: Floats = ratio(positive, 2.0 + positive * total).sum(axis=1, keepdims=True)
    return weights * activations


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``, zero where either is: a denominator that vanishes has no meaning in the formula."""
    return np.divide(above, below, out=np.zeros_like(above), where=(above != 0) & (below != 0))


def warnings(ask: Ask, activations: Sequence[Floats]) -> tuple[str, ...]:
    """What the closed form takes for granted and this network or layer does not have."""
    layer = layer_of(ask)
    said = []
    curved = curved_behind(ask.manifest, layer, ask.output)
    if curved:
        said.append(
            f"behind layer {layer.name!r} the score is not piecewise linear ({', '.join(curved)}): the closed form of"
            " the higher derivatives is an approximation there"
        )
    if any((each.sum(axis=1) < 0).any() for each in activations):
        said.append(
            f"layer {layer.name!r} has feature maps with negative sums, where the formula's denominator can vanish or"
            " change its sign: take the layer behind the activation"
        )
    return tuple(said)


def plan(ask: Ask) -> Plan:
    """One row; the backward pass need not go below the layer."""
    (outcome,) = yield [round_(ask)]
    view, activations, gradients = taken(ask, outcome)
    reduced = finished(ask, view, shares(activations, gradients))
    return replace(reduced, warnings=warnings(ask, [activations]))


METHOD = Method(
    "grad_cam_plus_plus",
    "Grad-CAM with weights from the places that speak for the score, so that several occurrences count alike",
    plan,
    ("gradient",),
    (*OPTIONS, threshold(0.15), DERIVATIVES),
    paper="Chattopadhay et al. 2018, arXiv:1710.11063",
    needs=f"{NEEDS}; exact where the score is piecewise linear in it",
)
