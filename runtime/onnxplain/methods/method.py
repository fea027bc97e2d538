"""What a method is: a record that says which points the model is evaluated at, and what is made of what came back.

A method is pure: it never batches, never sees ONNX Runtime and never draws noise itself. Its plan is a generator that
yields rounds of rows, receives their outcomes, may yield more, and returns the result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxplain.artifact import Layer, Manifest, TensorSpec
from onnxplain.errors import LimitExceeded
from onnxplain.rows import Floats, Outcome, Purpose, Round, Rows


@dataclass(frozen=True)
class Option:
    """One keyword of a method. ``kind``: int, float, bool, str, choice, layer, array or indices.

    An option of kind array takes one of ``choices``, a number, or an array in the model's input space. One of kind
    indices takes whole numbers from 0, or positions of several: it comes to the method as int64 (k,) or (k, axes).
    """

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Reduced:
    """What a plan returns for one input row, in float64.

    ``error`` is the estimated relative L2 error per tensor; no entry where the map is exact or nothing is known of it.
    """

    attributions: Mapping[str, Floats]
    error: Mapping[str, float] = field(default_factory=dict)
    extras: Mapping[str, Floats] = field(default_factory=dict)
    converged: bool = True
    warnings: tuple[str, ...] = ()


Plan = Generator[Sequence[Round], Sequence[Outcome], Reduced]


@dataclass(frozen=True)
class Ask:
    """What a method sees of one request: resolved options and the model's manifest, no data."""

    options: Mapping[str, Any]
    manifest: Manifest
    tensors: tuple[TensorSpec, ...]
    """The differentiated tensors, each with the concrete shape of one row (no row axis)."""
    output: str
    layer: Layer | None = None
    base: Method | None = None
    """The method that a smoothing method averages; its options are in ``options`` too."""
    row_limit: int = 1_000_000
    """Most rows that this process lets one input row cost."""

    def purpose(self, rules: str, taps: tuple[str, ...] = (), *, sums: bool = True) -> Purpose:
        """Gradients of the explained output; ``sums`` False where only ``taps`` and their gradients are wanted."""
        wrt = tuple(spec.name for spec in self.tensors) if sums else ()
        return Purpose(self.output, rules, wrt, taps, taps)

    def afford(self, n_rows: int, what: str) -> None:
        """Raises LimitExceeded before a table of ``n_rows`` is made."""
        if n_rows > self.row_limit:
            raise LimitExceeded(
                f"{what} takes {n_rows} rows per input row, the limit is {self.row_limit}: ask for less"
            )


def no_error(_ask: Ask, _rows: Rows, _jumps: Floats, _check: float) -> float:
    """Squared error of a sum that is exact."""
    return 0.0


@dataclass(frozen=True)
class Linear:
    """A map that is a weighted sum of gradients over one table of rows: SmoothGrad of it is the table repeated."""

    rules: str
    rows: Callable[[Ask], Rows]
    squared_error: Callable[[Ask, Rows, Floats, float], float] = no_error
    """From a tensor's jumps (one per row) and the squared norm of its check map: the estimated squared L2 error that
    the finite number of rows leaves in the mean map."""


@dataclass(frozen=True)
class Method:
    """One saliency method, as listed in ``METHODS``."""

    name: str
    summary: str
    plan: Callable[[Ask], Plan]
    rules: tuple[str, ...]
    """Rule sets that the artifact must hold."""
    options: tuple[Option, ...] = ()
    paper: str = ""
    completeness: bool = False
    """The map sums to the score minus the baseline's score (where it multiplies by the inputs)."""
    needs: str = ""
    """What a model must have for the method, in words; empty: any model."""
    linear: Linear | None = None


def exact(name: str, summary: str, rows: Rows, *, rules: str = "gradient", paper: str = "", needs: str = "") -> Method:
    """A method whose map is the sum over one fixed table of rows, exact as it stands."""

    def plan(ask: Ask) -> Plan:
        (outcome,) = yield [Round(ask.purpose(rules), rows)]
        return Reduced({tensor: np.asarray(moments.mean, np.float64) for tensor, moments in outcome.moments.items()})

    linear = Linear(rules, lambda ask: rows)
    return Method(name, summary, plan, (rules,), paper=paper, needs=needs, linear=linear)


def noisy(plan: Plan, sample: int, noise: float) -> Plan:
    """The same plan with every row moved by the noise of one sample."""
    outcomes: Sequence[Outcome] | None = None
    while True:
        try:
            rounds = next(plan) if outcomes is None else plan.send(outcomes)
        except StopIteration as stop:
            reduced: Reduced = stop.value
            return reduced
        outcomes = yield [replace(each, rows=_moved(each.rows, sample, noise)) for each in rounds]


def _moved(rows: Rows, sample: int, noise: float) -> Rows:
    return replace(rows, sample=np.full(len(rows), sample, np.int64), noise=np.full(len(rows), noise))


def together(plans: Sequence[Plan]) -> Generator[Sequence[Round], Sequence[Outcome], list[Reduced]]:
    """Several plans as one, round by round, so that their rows share runs."""
    done: dict[int, Reduced] = {}
    sent: dict[int, Sequence[Outcome] | None] = dict.fromkeys(range(len(plans)))
    while sent:
        asked: dict[int, Sequence[Round]] = {}
        for index, outcomes in sent.items():
            try:
                asked[index] = next(plans[index]) if outcomes is None else plans[index].send(outcomes)
            except StopIteration as stop:
                done[index] = stop.value
        if not asked:
            break
        came = yield [each for rounds in asked.values() for each in rounds]
        sent, start = {}, 0
        for index, rounds in asked.items():
            sent[index] = came[start : start + len(rounds)]
            start += len(rounds)
    return [done[index] for index in range(len(plans))]
