"""Guided backpropagation (Springenberg et al. 2014, arXiv:1412.6806, section 3.4).

At an activation f the signal passes where both the input and the signal are positive:
``1[x > 0] * 1[g > 0] * f'(x) * g``.
It is close to an edge detector and hardly depends on the upper layers (Adebayo et al. 2018): check with a sanity test.
"""

from __future__ import annotations

from onnxplain.methods.method import exact
from onnxplain.rows import Rows

METHOD = exact(
    "guided_backprop",
    "the gradient with negative signals stopped at every activation, sharp and nearly blind to the upper layers",
    Rows.table([1.0]),
    rules="guided",
    paper="Springenberg et al. 2014, arXiv:1412.6806",
    needs="activations (ReLU and the like); without any it equals the gradient",
)
