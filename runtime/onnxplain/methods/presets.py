"""Presets: the options of a paper under one name. What the caller gives beside a preset wins over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnxplain.errors import BadRequest, NotFound, nearest
from onnxplain.methods.method import Method, Option

PROBABILITY = "probability"
"""As a preset's ``output``: the probability that belongs to the model's logits."""

_NOISE = {"n_samples": 50, "noise_scale": 0.15}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # Right Riemann sum (eq. 3) of the softmax output (the authors' howto.md); 20 to 300 steps, black for pictures.
    "sundararajan2017": {
        "gradient": {"output": PROBABILITY},
        "gradient_x_input": {"output": PROBABILITY},
        "integrated_gradients": {"output": PROBABILITY, "quadrature": "riemann_right", "n_steps": 300},
    },
    # Logits, a baseline of zero as the model sees it, and the settings of the released code. Its sum counts both
    # ends of the path in full, which breaks completeness: here they count half.
    "adebayo2018": {
        "gradient": {},
        "gradient_x_input": {},
        "guided_backprop": {},
        "grad_cam": {},
        "guided_grad_cam": {},
        "integrated_gradients": {"quadrature": "trapezoid", "n_steps": 50, "baseline": "zero"},
        "smoothgrad": _NOISE,
        "vargrad": {**_NOISE, "n_samples": 25},
    },
}


def offered(method: Method) -> Method:
    """The method with an option for the presets that have something for it."""
    names = tuple(name for name, methods in PRESETS.items() if method.name in methods)
    if not names:
        return method
    option = Option("preset", "choice", None, "a paper's options, where none are given beside it", choices=names)
    return replace(method, options=(*method.options, option))


def options(preset: str, method: str) -> Mapping[str, Any]:
    """The options that ``preset`` gives ``method``. Raises NotFound or BadRequest with what there is."""
    if preset not in PRESETS:
        raise NotFound(f"no preset {preset!r}; {nearest(preset, PRESETS)}")
    if method not in PRESETS[preset]:
        raise BadRequest(f"preset {preset!r} has nothing for method {method!r}; it has: {', '.join(PRESETS[preset])}")
    return PRESETS[preset][method]
