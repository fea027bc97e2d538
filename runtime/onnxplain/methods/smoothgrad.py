"""SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825, section 3): the mean map over noisy copies of the input."""

from __future__ import annotations

from onnxplain.methods.smoothing import smoothing

METHOD = smoothing(
    "smoothgrad",
    "the mean of a method's map over noisy copies of the input",
    "Smilkov et al. 2017, arXiv:1706.03825",
    lambda total: total.mean,
    halves=False,
)
