"""SmoothGrad-squared (Hooker et al. 2019, arXiv:1806.10758, section 3): the mean square over noisy inputs."""

from __future__ import annotations

from onnxplain.methods.smoothing import smoothing

METHOD = smoothing(
    "smoothgrad_squared",
    "the mean of the square of a method's map over noisy copies of the input",
    "Hooker et al. 2019, arXiv:1806.10758",
    lambda total: total.mean_square,
    halves=True,
)
