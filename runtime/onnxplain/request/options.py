"""Options of a request: names and values checked, presets and defaults filled in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Layer, Manifest
from onnxplain.errors import BadRequest, NotFound, Unsupported, nearest
from onnxplain.methods import METHODS, presets
from onnxplain.methods.method import Method, Option

SEED_BITS = 53
"""Drawn seeds fit every reader of JSON."""

MOST = 2**31
"""No axis is longer: what is above it would not be an int64 where it came as a uint64."""


@dataclass(frozen=True)
class Chosen:
    """What is to be done: the method (and what it averages), every option resolved, the output that is explained."""

    method: Method
    base: Method | None
    options: Mapping[str, Any]
    output: str
    layer: Layer | None
    seed: int

    @property
    def complete(self) -> bool:
        """The map sums to the score difference: the method says so, and multiplies by the inputs."""
        return self.method.completeness and bool(self.options.get("multiply_by_inputs", True))


def choose(
    manifest: Manifest,
    method: str,
    given: Mapping[str, Any],
    *,
    output: str | None,
    preset: str | None,
    seed: int | None,
) -> Chosen:
    """Raises NotFound for an unknown method, output, layer or preset, BadRequest for an option that is unknown, of the
    wrong type or out of range, and Unsupported where the artifact lacks a rule set that the method needs.
    """
    if method not in METHODS:
        raise NotFound(f"no method {method!r}; {nearest(str(method), METHODS)}")
    from_preset = dict(presets.options(preset, method)) if preset is not None else {}
    preset_output = from_preset.pop("output", None)
    chosen, base = METHODS[method], _base(METHODS[method], {**from_preset, **given})
    known = {option.name: option for each in (base, chosen) if each is not None for option in each.options}
    for name in given:
        if name not in known:
            raise BadRequest(f"method {method!r} has no option {name!r}; {nearest(name, known)}")
    seed = _seed(seed)
    common = {name: value for name, value in (("seed", seed), ("preset", preset)) if name in known}
    options = {name: option.default for name, option in known.items()} | from_preset | dict(given) | common
    options = {name: check(method, known[name], value) for name, value in options.items()}
    for each in (chosen, base):
        _need_rules(manifest, each)
    layer = _layer(manifest, options["layer"]) if options.get("layer") is not None else None
    return Chosen(chosen, base, options, _output(manifest, output or preset_output), layer, seed)


def _base(method: Method, given: Mapping[str, Any]) -> Method | None:
    for option in method.options:
        if option.name == "base":
            return METHODS[check(method.name, option, given.get("base", option.default))]
    return None


def check(method: str, option: Option, value: Any) -> Any:
    """The value in the option's own type. Raises BadRequest that says what the option takes."""
    if value is None:
        if option.default is None:
            return None
        raise BadRequest(f"{option.name}=None of method {method!r}: leave it out for the default, {option.default!r}")
    where = f"{option.name}={_shown(value)} of method {method!r}"
    match option.kind:
        case "int":
            if not is_whole(value):
                raise BadRequest(f"{where}: give a whole number")
            return _within(where, option, int(value))
        case "float":
            if not is_finite(value):
                raise BadRequest(f"{where}: give a finite number")
            return _within(where, option, float(value))
        case "bool":
            if not isinstance(value, (bool, np.bool_)):
                raise BadRequest(f"{where}: give True or False")
            return bool(value)
        case "choice":
            if not isinstance(value, str) or value not in option.choices:
                raise BadRequest(f"{where}: {nearest(str(value), option.choices)}")
            return value
        case "array":
            if isinstance(value, str) and value not in option.choices:
                raise BadRequest(f"{where}: give one of {', '.join(option.choices)}, a number or an array")
            return value
        case "indices":
            return _indices(where, value)
        case _:
            if not isinstance(value, str):
                raise BadRequest(f"{where}: give a name")
            return value


def _indices(where: str, value: Any) -> NDArray[np.int64]:
    """A whole number, or a sequence of these or of positions; as text ``3,17`` or ``2:3,4:5``."""
    wanted = f"{where}: give whole numbers from 0, as 3 or [3, 17], or positions, as [(2, 3), (4, 5)]"
    try:
        if isinstance(value, str):
            value = [tuple(map(int, each.split(":"))) if ":" in each else int(each) for each in value.split(",")]
        array = np.atleast_1d(np.asarray(value))
    except ValueError:
        raise BadRequest(wanted) from None
    if array.dtype.kind not in "iu" or array.ndim > 2 or not array.size or array.min() < 0 or array.max() > MOST:
        raise BadRequest(wanted)
    return array.astype(np.int64)


def is_whole(value: object) -> bool:
    """A whole number of Python's or numpy's, no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """A finite number of Python's or numpy's, no bool."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and isfinite(value)


def _within(where: str, option: Option, value: float) -> float:
    if option.minimum is not None and value < option.minimum:
        raise BadRequest(f"{where}: the least is {option.minimum:g}")
    if option.maximum is not None and value > option.maximum:
        raise BadRequest(f"{where}: the most is {option.maximum:g}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array of shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _need_rules(manifest: Manifest, method: Method | None) -> None:
    missing = [rules for rules in (method.rules if method else ()) if rules not in manifest.rules]
    if method is not None and missing:
        raise Unsupported(
            f"method {method.name!r} needs rule set {missing[0]!r}, this artifact has {', '.join(manifest.rules)}:"
            f" convert the model again with rules=({', '.join(map(repr, (*manifest.rules, *missing)))},)"
        )


def _layer(manifest: Manifest, name: str) -> Layer:
    """A layer by its name, or any inner tensor on the path by its own."""
    on_path = {tensor for tensors in manifest.gradients.values() for tensor in tensors}
    try:
        layer = manifest.layer(name)
    except NotFound:
        if name not in on_path:
            raise
        return Layer(name, "", name, None)
    if layer.tensor not in on_path:
        raise BadRequest(f"layer {name!r} has no gradient: it is not between the inputs and an explained output")
    return layer


def _output(manifest: Manifest, name: str | None) -> str:
    if name is None:
        return manifest.default_output
    if name == presets.PROBABILITY and name not in manifest.explained:
        for probability, logits in manifest.probabilities.items():
            if logits == manifest.default_output and probability in manifest.explained:
                return probability
        raise BadRequest(
            "this preset explains the probability, and no output of the model is a Softmax or Sigmoid of its logits:"
            f" name an output with output=; there are {', '.join(manifest.explained)}"
        )
    if name not in manifest.explained:
        raise NotFound(f"no explained output {name!r}; {nearest(name, manifest.explained)}")
    return name


def _seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbits(SEED_BITS)
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise BadRequest(f"seed={_shown(seed)}: give a whole number from 0 to 2**64 - 1")
    return int(seed)
