"""CAM (Zhou et al. 2016, arXiv:1512.04150, eq. 2): ``sum_k w_k A_k`` with the last linear layer's own weights.

Only where global average pooling and one linear layer follow the feature maps. There the score's gradient at every
place of map k is ``w_k / places``, so that its sum over the places is the weight, of any target, without reading it.
"""

from __future__ import annotations

import numpy as np

from onnxplain.artifact import Layer, Manifest
from onnxplain.errors import Unsupported
from onnxplain.methods.activation_map import OPTIONS, finished, having, layer_of, round_, taken, threshold
from onnxplain.methods.feature_map import on_path
from onnxplain.methods.method import Ask, Method, Plan
from onnxplain.rows import Floats

MOVES = frozenset(["Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"])
POOLS = frozenset(["AveragePool", "GlobalAveragePool", "ReduceMean"])
LINEAR = frozenset(["Conv", "Gemm", "MatMul"])


def check(manifest: Manifest, layer: Layer, output: str) -> None:
    """Raises Unsupported where anything but global average pooling and one linear layer makes the output of it."""
    path = list(on_path(manifest, output)) + [each for each in manifest.layers if each.tensor == output]
    start = next((k for k, each in enumerate(path) if each.tensor == layer.tensor), -1)
    behind = [each for each in path[start + 1 :] if each.op not in MOVES]
    pools = behind[:1] and behind[0].op in POOLS and _is_point(behind[0])
    linear = behind[1:2] and behind[1].op in LINEAR and behind[1].initializers
    bias = all(each.op == "Add" and each.initializers for each in behind[2:]) and len(behind) <= 3
    if not (pools and linear and bias):
        ops = [each.op for each in behind]
        raise Unsupported(
            f"CAM needs global average pooling and one linear layer between {layer.name!r} and {output!r}, here it is"
            f" {', '.join(ops[:6]) or 'nothing'}{' ...' if len(ops) > 6 else ''}: take grad_cam, which needs neither"
        )


def _is_point(layer: Layer) -> bool:
    """No spatial axis is left, or each of one place."""
    return layer.shape is not None and all(size == 1 for size in layer.shape[2:])


def shares(activations: Floats, gradients: Floats) -> Floats:
    """``w_k A_k``."""
    weights: Floats = gradients.sum(axis=1, keepdims=True)
    return weights * activations


def plan(ask: Ask) -> Plan:
    """One row; the structure is looked at before anything is run, the gradients' constancy after."""
    layer = layer_of(ask)
    check(ask.manifest, layer, ask.output)
    (outcome,) = yield [round_(ask)]
    view, activations, gradients = taken(ask, outcome)
    spread = np.ptp(gradients, axis=1).max()
    if spread > 1e-3 * np.abs(gradients).max():
        raise Unsupported(
            f"the gradients at layer {layer.name!r} differ between places, so that what follows is no global average"
            " pooling: take grad_cam"
        )
    # Chosen neurons are part of the sum, their weight is the whole map's: a gradient times all places.
    all_places = int(np.prod(view.layout.space))
    return finished(ask, view, shares(activations, gradients * (all_places / gradients.shape[1])))


METHOD = Method(
    "cam",
    "a layer's feature maps weighted as the last linear layer weights their means: what the score is made of",
    plan,
    ("gradient",),
    (*having(OPTIONS, relu=False), threshold(0.2)),
    paper="Zhou et al. 2016, arXiv:1512.04150",
    needs="global average pooling and one linear layer behind the last feature maps",
)
