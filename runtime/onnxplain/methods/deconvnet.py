"""The deconvolutional network (Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1).

At an activation the signal passes where it is itself positive, whatever the forward value was.
"""

from __future__ import annotations

from onnxplain.methods.method import exact
from onnxplain.rows import Rows

METHOD = exact(
    "deconvnet",
    "the signal sent back through the network with the activation applied to the signal itself",
    Rows.table([1.0]),
    rules="deconvnet",
    paper="Zeiler and Fergus 2013, arXiv:1311.2901",
    needs="activations (ReLU and the like); without any it equals the gradient",
)
