"""The gradient of the score with respect to the input (Simonyan et al. 2013, arXiv:1312.6034, section 3)."""

from __future__ import annotations

from onnxplain.methods.method import exact
from onnxplain.rows import Rows

METHOD = exact(
    "gradient",
    "the derivative of the score with respect to every input value",
    Rows.table([1.0]),
    paper="Simonyan et al. 2013, arXiv:1312.6034",
)
