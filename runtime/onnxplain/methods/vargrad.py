"""VarGrad (Adebayo et al. 2018, arXiv:1810.03292, appendix A): the population variance over noisy inputs."""

from __future__ import annotations

from onnxplain.methods.smoothing import smoothing

METHOD = smoothing(
    "vargrad",
    "the variance of a method's map over noisy copies of the input",
    "Adebayo et al. 2018, arXiv:1810.03292",
    lambda total: total.variance,
    halves=True,
)
