"""Gradient times input (Shrikumar et al. 2016, arXiv:1605.01713, section 2.2)."""

from __future__ import annotations

from onnxplain.methods.method import exact
from onnxplain.rows import Rows

METHOD = exact(
    "gradient_x_input",
    "the gradient times the input: what each value adds to the score of the model linearised here",
    Rows.table([1.0], multiply=True),
    paper="Shrikumar et al. 2016, arXiv:1605.01713",
)
