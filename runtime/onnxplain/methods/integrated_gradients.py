"""Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv:1703.01365, eq. 1).

``(x - b) * integral over alpha in [0, 1] of dF(b + alpha (x - b))/dx``: the map sums to F(x) - F(b), up to the
quadrature.
"""

from __future__ import annotations

import numpy as np

from onnxplain.methods import quadrature
from onnxplain.methods.method import Ask, Linear, Method, Option, Plan, Reduced
from onnxplain.methods.moments import norm2, relative
from onnxplain.methods.tolerance import OPTIONS as PRECISION
from onnxplain.methods.tolerance import most_rows, reached
from onnxplain.rows import Floats, Round, Rows

MAX_STEPS = 10_000
"""Far beyond any use: at 1,000 steps the maps of trained networks are within 1 % of converged."""

BASELINES = ("zero", "black", "white", "mean", "blur")

OPTIONS = (
    Option("n_steps", "int", 50, "points on the path from the baseline to the input", minimum=1, maximum=MAX_STEPS),
    Option(
        "quadrature",
        "choice",
        "auto",
        "rule of the path integral; auto: midpoint where the network has kinks (ReLU), else gauss_legendre",
        choices=("auto", *quadrature.NAMES),
    ),
    Option(
        "baseline",
        "array",
        "zero",
        "start of the path: zero as the model sees it; black, white, mean colour or blur; a number; an array",
        choices=BASELINES,
    ),
    Option("multiply_by_inputs", "bool", True, "multiply by input minus baseline (off: the path's mean gradient)"),
)


def rule_name(ask: Ask) -> str:
    """The quadrature asked for, ``auto`` resolved by whether the network has kinks."""
    name: str = ask.options["quadrature"]
    return name if name != "auto" else "midpoint" if ask.manifest.kinks else "gauss_legendre"


def rows(ask: Ask) -> Rows:
    """The whole path as one sample."""
    return quadrature.rule(rule_name(ask), ask.options["n_steps"]).rows(ask.options["multiply_by_inputs"])


def squared_error(ask: Ask, table: Rows, jumps: Floats, check: float) -> float:
    """The quadrature's squared error in a tensor's mean map."""
    return quadrature.squared_error(rule_name(ask), table, jumps, check)


def plan(ask: Ask) -> Plan:
    """One round, and finer ones while the estimated error is above ``tolerance``."""
    name, n = rule_name(ask), int(ask.options["n_steps"])
    ask.afford(n, f"n_steps={n}")
    rule, maps, checks = quadrature.rule(name, n), dict[str, Floats](), dict[str, Floats]()
    while True:
        table = rule.rows(ask.options["multiply_by_inputs"])
        (outcome,) = yield [Round(ask.purpose("gradient"), table)]
        error: dict[str, float] = {}
        for tensor, moments in outcome.moments.items():
            maps[tensor] = rule.carry * maps.get(tensor, 0.0) + np.asarray(moments.mean, np.float64)
            checks[tensor] = rule.carry * checks.get(tensor, 0.0) + np.asarray(moments.check, np.float64)
            left = squared_error(ask, table, outcome.jumps[tensor], norm2(checks[tensor]))
            error[tensor] = relative(left, maps[tensor])
        if reached(ask, error):
            return Reduced(maps, error)
        rule, finer = quadrature.refined(name, n)
        if finer > most_rows(ask, MAX_STEPS):
            return Reduced(maps, error, converged=False)
        n = finer


METHOD = Method(
    "integrated_gradients",
    "the gradient averaged along the straight path from a baseline to the input, times their difference",
    plan,
    ("gradient",),
    (*OPTIONS, *PRECISION),
    paper="Sundararajan et al. 2017, arXiv:1703.01365",
    completeness=True,
    linear=Linear("gradient", rows, squared_error),
)
