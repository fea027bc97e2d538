"""How a parameter's new values come about: every choice a named option, the papers' choices as presets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxplain.errors import BadRequest, NotFound, nearest

VALUES = ("truncated_normal", "he", "glorot", "permute")
TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut off at -2 and 2."""


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadRequest(f"{name}={value!r}: one of {', '.join(choices)}")


@dataclass(frozen=True)
class Policy:
    """What randomising does to a parameter, by its role."""

    values: str = "truncated_normal"
    """"truncated_normal": mean 0, cut off at two standard deviations. "he", "glorot": the same with a variance of
    gain^2 / fan_in, or 2 gain^2 / (fan_in + fan_out). "permute": the original's own values in another order."""
    std: float | None = None
    """Of the normal distribution before the cut, as in TensorFlow; None: the new values have the original's root mean
    square. Only for "truncated_normal"."""
    gain: float | None = None
    """Of "he" (the square root of 2 where None) and "glorot" (1)."""
    biases: str = "random"
    """"random", "keep", or "constant": all ``bias_value``."""
    bias_value: float = 0.0
    normalisation: str = "random"
    """Of scales and shifts: "random", "keep", or "reset" to 1 and 0."""
    statistics: str = "keep"
    """Running means and variances: "keep", or "reset" to 0 and 1."""

    def __post_init__(self) -> None:
        _one_of("values", self.values, VALUES)
        _one_of("biases", self.biases, ("random", "keep", "constant"))
        _one_of("normalisation", self.normalisation, ("random", "keep", "reset"))
        _one_of("statistics", self.statistics, ("keep", "reset"))
        if self.std is not None and (self.values != "truncated_normal" or not 0 < self.std < math.inf):
            raise BadRequest(f"std={self.std:g}: a positive number, and only with values='truncated_normal'")
        if self.gain is not None and (self.values not in ("he", "glorot") or not 0 < self.gain < math.inf):
            raise BadRequest(f"gain={self.gain:g}: a positive number, and only with values='he' or 'glorot'")
        if not math.isfinite(self.bias_value):
            raise BadRequest(f"bias_value={self.bias_value:g}: a finite number")

    def action(self, role: str) -> str:
        """What happens to a parameter of that role: "random", "keep", "constant" or "reset"."""
        if role == "weight":
            return "random"
        if role == "bias":
            return self.biases
        if role in ("scale", "shift"):
            return self.normalisation
        if role in ("mean", "variance"):
            return self.statistics
        return "keep"


PRESETS = {
    # Appendix B: "truncated normal", mean 0 and standard deviation 0.01; weights, biases and normalisation.
    "adebayo-paper": Policy(std=0.01),
    # The released code runs each variable's own initialiser again: those of its CNN, and of its MLP.
    "adebayo-code": Policy(std=0.1, biases="constant", bias_value=0.1, normalisation="reset"),
    "adebayo-code-mlp": Policy(values="he", gain=2 * TRUNCATED_STD, biases="constant", normalisation="reset"),
}
"""Adebayo et al. 2018, arXiv:1810.03292; paper and code disagree, so both are here."""


def preset(name: str) -> Policy:
    """Raises NotFound."""
    if name not in PRESETS:
        raise NotFound(f"no preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]
