"""What SmoothGrad, SmoothGrad-squared and VarGrad share: moments of a base method's map under noise on the input.

A linear base (one table of rows) is repeated, a sample per noise, and its moments come back ready made; any other base
(Grad-CAM) runs its plan once per sample. Sample numbers go on from round to round, so that no noise comes twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxplain.methods.method import Ask, Linear, Method, Option, Plan, Reduced, noisy, together
from onnxplain.methods.moments import Total, norm2, of_maps, relative, total
from onnxplain.methods.tolerance import OPTIONS as PRECISION
from onnxplain.methods.tolerance import most_rows, reached
from onnxplain.rows import Floats, Moments, Outcome, Round, Rows

BASES = (
    "gradient",
    "gradient_x_input",
    "integrated_gradients",
    "guided_backprop",
    "deconvnet",
    "cam",
    "grad_cam",
    "guided_grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "layer_cam",
    "x_grad_cam",
    "eigen_cam",
)
MAX_SAMPLES = 100_000
AT_ONCE = 16
"""Maps of a base that is not linear are held in numpy: so many at a time."""

OPTIONS = (
    Option("base", "choice", "gradient", "the method that is averaged; its options are taken too", choices=BASES),
    Option("n_samples", "int", 50, "noisy copies of the input", minimum=2, maximum=MAX_SAMPLES),
    Option(
        "noise_scale",
        "float",
        0.15,
        "standard deviation of the noise, as a fraction of each row's max - min",
        minimum=0.0,
        maximum=10.0,
    ),
    Option("seed", "int", None, "of the noise; none: one is drawn and returned", minimum=0, maximum=2**64 - 1),
    *PRECISION,
)


@dataclass(frozen=True)
class Draw:
    """Moments of some samples per tensor, and for a linear base the rows and jumps that they came from."""

    moments: Mapping[str, Moments]
    rows: Rows | None = None
    jumps: Mapping[str, Floats] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


Draws = Generator[Sequence[Round], Sequence[Outcome], list[Draw]]
Statistic = Callable[[Total], Floats]


def smoothing(name: str, summary: str, paper: str, statistic: Statistic, *, halves: bool) -> Method:
    """The method that returns ``statistic`` of the base's maps.

    Its error is the standard error of the mean; where ``halves`` (a statistic of second order, whose standard error
    takes fourth moments), half the distance between what two independent halves of the samples give.
    """

    def plan(ask: Ask) -> Plan:
        n, done, draws = int(ask.options["n_samples"]), 0, list[Draw]()
        while True:
            sizes = (n - n // 2, n // 2) if halves else (n,)
            draws += yield from _drawn(ask, done, sizes)
            done += n
            totals = {tensor: total([each.moments[tensor] for each in draws]) for tensor in draws[0].moments}
            maps = {tensor: statistic(each) for tensor, each in totals.items()}
            error: dict[str, float] = {}
            for tensor, map_ in maps.items():
                square = _between_halves(statistic, draws, tensor) if halves else _of_mean(ask, draws, tensor)
                error[tensor] = relative(square, map_)
            said = dict.fromkeys(text for each in draws for text in each.warnings)
            reduced = Reduced(maps, error, warnings=tuple(said))
            if reached(ask, error):
                return reduced
            n = _more(ask, error, done)
            if n < 4:
                return replace(reduced, converged=False)

    return Method(name, summary, plan, ("gradient",), OPTIONS, paper=paper)


def _drawn(ask: Ask, start: int, sizes: Sequence[int]) -> Draws:
    base, what = _base(ask), f"n_samples={start + sum(sizes)}"
    ask.afford((start + sum(sizes)) * _rows_per_sample(ask), f"{what} of {base.name}")
    if base.linear is not None:
        return (yield from _linear(ask, base.linear, start, sizes))
    draws = []
    for size in sizes:
        draws.append((yield from _any(ask, base, start, size)))
        start += size
    return draws


def _linear(ask: Ask, linear: Linear, start: int, sizes: Sequence[int]) -> Draws:
    table, noise = linear.rows(ask), float(ask.options["noise_scale"])
    tables = []
    for size in sizes:
        repeated = table.repeated(size, noise)
        tables.append(replace(repeated, sample=repeated.sample + start))
        start += size
    outcomes = yield [Round(ask.purpose(linear.rules), each) for each in tables]
    return [Draw(came.moments, rows, came.jumps) for rows, came in zip(tables, outcomes, strict=True)]


def _any(ask: Ask, base: Method, start: int, size: int) -> Generator[Sequence[Round], Sequence[Outcome], Draw]:
    noise, parts = float(ask.options["noise_scale"]), dict[str, list[Moments]]()
    said: dict[str, None] = {}
    for first in range(start, start + size, AT_ONCE):
        samples = range(first, min(first + AT_ONCE, start + size))
        reduced = yield from together([noisy(base.plan(ask), sample, noise) for sample in samples])
        said |= dict.fromkeys(text for each in reduced for text in each.warnings)
        for tensor in reduced[0].attributions:
            parts.setdefault(tensor, []).append(of_maps([each.attributions[tensor] for each in reduced]))
    return Draw({tensor: _merged(each) for tensor, each in parts.items()}, warnings=tuple(said))


def _merged(parts: Sequence[Moments]) -> Moments:
    all_ = total(parts)
    return Moments(all_.n, all_.mean, np.zeros_like(all_.mean), all_.deviations, all_.check)


def _of_mean(ask: Ask, draws: Sequence[Draw], tensor: str) -> float:
    """Noise and quadrature, taken as independent of each other."""
    all_, linear = total([each.moments[tensor] for each in draws]), _base(ask).linear
    tables = [each.rows for each in draws if each.rows is not None]
    if linear is None:
        return all_.squared_error_of_mean
    jumps = np.concatenate([each.jumps[tensor] for each in draws])
    return all_.squared_error_of_mean + linear.squared_error(ask, _joined(tables), jumps, norm2(all_.check))


def _joined(tables: Sequence[Rows]) -> Rows:
    def column(name: str) -> Any:
        return np.concatenate([getattr(each, name) for each in tables])

    return Rows(
        alpha=column("alpha"),
        weight=column("weight"),
        sample=column("sample"),
        noise=column("noise"),
        baseline=column("baseline"),
        check=column("check"),
        multiply=tables[0].multiply,
    )


def _between_halves(statistic: Statistic, draws: Sequence[Draw], tensor: str) -> float:
    first, second = (total([each.moments[tensor] for each in draws[part::2]]) for part in (0, 1))
    if min(first.n, second.n) < 2:
        return float("nan")  # a variance takes two
    return norm2(statistic(first) - statistic(second)) / 4


def _more(ask: Ask, error: Mapping[str, float], done: int) -> int:
    """Samples to add: the error falls as 1/sqrt(n); at most to four times as many, for the estimate has errors too."""
    worst = max((each for each in error.values() if math.isfinite(each)), default=math.inf)
    wanted = done * min(1.1 * (worst / float(ask.options["tolerance"])) ** 2, 4.0)
    each = _rows_per_sample(ask)
    return min(math.ceil(wanted), most_rows(ask, MAX_SAMPLES * each) // each) - done


def _rows_per_sample(ask: Ask) -> int:
    base = _base(ask)
    return len(base.linear.rows(ask)) if base.linear is not None else max(len(base.rules), 1)


def _base(ask: Ask) -> Method:
    assert ask.base is not None, "a smoothing method is asked with its base"
    return ask.base
