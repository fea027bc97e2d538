"""New values for one parameter: a pure function of the old ones, the policy and (seed, draw, name)."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from onnxplain.sanity.parameters import Parameter
from onnxplain.sanity.policy import TRUNCATED_STD, Policy

Array = NDArray[Any]


def generator(seed: int, draw: int, name: str) -> np.random.Generator:
    """A counter-based stream of its own for every (seed, draw, name): no two parameters share one."""
    digest = hashlib.sha256(f"{seed}/{draw}/{name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def renewed(parameter: Parameter, old: Array, policy: Policy, seed: int, draw: int) -> Array:
    """New values, of the type and shape of ``old``; codes are requantised with their own step and zero point."""
    action = policy.action(parameter.role)
    if action == "keep":
        return old
    random = generator(seed, draw, parameter.name)
    if action == "random" and policy.values == "permute":
        # Codes are shuffled as codes: with a step per channel the shuffled real values would have none.
        return random.permutation(old.reshape(-1)).reshape(old.shape)
    real = dequantised(parameter, old)
    if action == "constant":
        new = np.full(old.shape, policy.bias_value)
    elif action == "reset":
        new = np.full(old.shape, 1.0 if parameter.role in ("scale", "variance") else 0.0)
    else:
        new = truncated_normal(random, old.shape) * _std(parameter, real, policy)
    return _written(parameter, new, old)


def truncated_normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal values between -2 and 2, by inversion; their standard deviation is ``TRUNCATED_STD``."""
    low, high = ndtr(-2.0), ndtr(2.0)
    made: Array = ndtri(low + (high - low) * random.random(shape))
    return made


def follows_fans(parameter: Parameter, policy: Policy) -> bool:
    """Does the policy draw this parameter by its fans? Else at its own scale."""
    return policy.values in ("he", "glorot") and parameter.fan_in is not None and parameter.fan_out is not None


def _std(parameter: Parameter, real: Array, policy: Policy) -> float:
    """Of the normal distribution before the cut."""
    if policy.std is not None:
        return policy.std
    if follows_fans(parameter, policy) and parameter.fan_in and parameter.fan_out:
        if policy.values == "he":
            return (policy.gain or math.sqrt(2.0)) / math.sqrt(parameter.fan_in) / TRUNCATED_STD
        return (policy.gain or 1.0) * math.sqrt(2.0 / (parameter.fan_in + parameter.fan_out)) / TRUNCATED_STD
    return float(np.sqrt(np.mean(np.square(real, dtype=np.float64)))) / TRUNCATED_STD if real.size else 0.0


def dequantised(parameter: Parameter, stored: Array) -> Array:
    """What stored values stand for, float64; codes without a known step in units of one code."""
    wide = stored.astype(np.float64)
    if parameter.codes is None:
        return wide
    step = 1.0 if parameter.codes.step is None else parameter.codes.step.astype(np.float64)
    made: Array = (wide - parameter.codes.zero.astype(np.float64)) * step
    return made


def _written(parameter: Parameter, new: Array, old: Array) -> Array:
    if parameter.codes is None:
        return new.astype(old.dtype)
    step = 1.0 if parameter.codes.step is None else parameter.codes.step.astype(np.float64)
    codes = new / step + parameter.codes.zero.astype(np.float64)
    if old.dtype.name.startswith("float"):  # eight-bit floats as codes
        return codes.astype(old.dtype)
    return np.clip(np.rint(codes), *code_range(old)).astype(old.dtype)


def code_range(stored: Array) -> tuple[int, int]:
    """Smallest and largest code of an array of integers, of four bits too."""
    dtype = ir.DataType.from_numpy(stored.dtype)
    span = 2**dtype.bitwidth
    return (-span // 2, span // 2 - 1) if dtype.is_signed() else (0, span - 1)
