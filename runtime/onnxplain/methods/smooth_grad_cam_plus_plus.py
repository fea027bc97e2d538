"""Smooth Grad-CAM++ (Omeiza et al. 2019, arXiv:1908.01224): Grad-CAM++ with derivatives averaged over noisy inputs.

With ``D_p`` the mean over the samples of the p-th derivative of ``Y = exp(S)``, by the closed form ``e^S g^p``:
``alpha_ij = D_1 / (2 D_2 + sum_ab A_ab D_3)``, ``w_k = sum_ij alpha_ij ReLU(D_1)``, ``ReLU(sum_k w_k A_k)``.
``numerator="corrected"`` has D_2 above, which is Grad-CAM++'s own: without noise the two are then the same map.
Where samples disagree D_3 can be negative though D_1 is not, and the denominator vanish, which it cannot in Grad-CAM++:
the result says so, and ``denominator="positive"`` takes a negative D_3 for zero.
Samples weigh ``e^S``, which here is ``exp(S - max S)`` over their sum: that scales the map and does not overflow.
``weighting="equal"`` leaves it out, as other implementations do: another estimate, of less variance. The activations
are those of the clean input.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxplain.methods.activation_map import NEEDS, OPTIONS, View, finished, round_, taken, threshold
from onnxplain.methods.grad_cam_plus_plus import DERIVATIVES, ratio, warnings
from onnxplain.methods.method import Ask, Method, Option, Plan
from onnxplain.methods.moments import norm2, relative
from onnxplain.methods.tolerance import OPTIONS as PRECISION
from onnxplain.methods.tolerance import most_rows, reached
from onnxplain.rows import Floats, Outcome, Round, Rows

MAX_SAMPLES = 100_000
AT_ONCE = 32
"""Gradients of a layer come back row by row: so many are held at a time."""

OWN = (
    Option("n_samples", "int", 25, "noisy copies of the input", minimum=2, maximum=MAX_SAMPLES),
    Option(
        "noise_scale",
        "float",
        0.15,
        "standard deviation of the noise, as a fraction of each row's max - min",
        minimum=0.0,
        maximum=10.0,
    ),
    Option(
        "numerator",
        "choice",
        "paper",
        "above in alpha: the mean first derivative, as printed, or the second, as in Grad-CAM++",
        choices=("paper", "corrected"),
    ),
    Option(
        "denominator",
        "choice",
        "paper",
        "below in alpha: as printed, or with negative third derivatives as zero, so that it cannot vanish",
        choices=("paper", "positive"),
    ),
    Option(
        "weighting",
        "choice",
        "exp_score",
        "of the samples: e to the score, as the derivatives of exp(score) have it, or all the same",
        choices=("exp_score", "equal"),
    ),
    Option("seed", "int", None, "of the noise; none: one is drawn and returned", minimum=0, maximum=2**64 - 1),
)


@dataclass
class Means:
    """Weighted sums of g, g^2 and g^3 over samples, relative to e to the largest score so far."""

    top: float = -math.inf
    weight: float = 0.0
    weight2: float = 0.0
    sums: list[Floats] = field(default_factory=list)

    def add(self, score: float, gradients: Floats) -> None:
        top = max(self.top, score)
        before, now = math.exp(self.top - top) if self.weight else 0.0, math.exp(score - top)
        powers = [now * gradients**p for p in (1, 2, 3)]
        self.sums = [before * a + b for a, b in zip(self.sums, powers, strict=True)] if self.sums else powers
        self.top, self.weight, self.weight2 = top, before * self.weight + now, before**2 * self.weight2 + now**2

    def merged(self, other: Means) -> Means:
        """Of all samples of both."""
        top = max(self.top, other.top)
        a, b = math.exp(self.top - top), math.exp(other.top - top)
        return Means(
            top,
            a * self.weight + b * other.weight,
            a**2 * self.weight2 + b**2 * other.weight2,
            [a * x + b * y for x, y in zip(self.sums, other.sums, strict=True)],
        )

    @property
    def effective(self) -> float:
        """Samples of equal weight that would say as much (Kish 1965)."""
        return self.weight**2 / self.weight2


@dataclass(frozen=True)
class Alpha:
    """The fraction by its parts, each (maps, places)."""

    above: Floats
    below: Floats
    positive: Floats
    """ReLU(D_1): what alpha is multiplied with."""
    least: Floats
    """What the denominator is where the third derivative is zero."""

    @property
    def n_poles(self) -> int:
        """Places that count and whose denominator is near zero or below."""
        return int(np.count_nonzero((self.positive > 0) & (self.below < self.least / 2)))


def alpha(ask: Ask, activations: Floats, means: Means) -> Alpha:
    """From the samples' means."""
    first, second, third = (each / means.weight for each in means.sums)
    if ask.options["denominator"] == "positive":
        third = np.maximum(third, 0.0)
    below = 2.0 * second + activations.sum(axis=1, keepdims=True) * third
    positive = np.maximum(first, 0.0)
    return Alpha(positive if ask.options["numerator"] == "paper" else second, below, positive, 2.0 * second)


def shares(activations: Floats, parts: Alpha) -> Floats:
    """``w_k A_k``."""
    above, below, positive = parts.above, parts.below, parts.positive
    weights: Floats = (ratio(above, below) * positive).sum(axis=1, keepdims=True)
    return weights * activations


def plan(ask: Ask) -> Plan:
    """The clean input, then noisy rows; their error is known from what two halves of them give."""
    (outcome,) = yield [round_(ask)]
    view, activations, _ = taken(ask, outcome)
    halves, done, n = (Means(), Means()), 0, int(ask.options["n_samples"])
    while True:
        ask.afford(done + n, f"n_samples={done + n}")
        yield from _drawn(ask, view, halves, range(done, done + n))
        done += n
        all_ = halves[0].merged(halves[1])
        parts = alpha(ask, activations, all_)
        reduced = finished(ask, view, shares(activations, parts))
        error = _error(ask, view, activations, halves, reduced.attributions)
        said = warnings(ask, [activations])
        if parts.n_poles:
            where = (
                "at some places of the layer, where samples disagree, the denominator of alpha is near zero or negative"
            )
            said = (*said, f"{where}: the map and its error cannot be relied on; take denominator=positive")
        if all_.effective < done / 4:
            few = f"weighted by e to the score, {done} samples say as much as {all_.effective:.1f}"
            said = (*said, f"{few}: take a larger n_samples, or weighting=equal")
        reduced = replace(reduced, error=error, warnings=said)
        if reached(ask, error):
            return reduced
        n = min(done, most_rows(ask, MAX_SAMPLES) - done)
        if n < 2:
            return replace(reduced, converged=False)


def _drawn(
    ask: Ask, view: View, halves: Sequence[Means], samples: range
) -> Generator[Sequence[Round], Sequence[Outcome], None]:
    for start in range(samples.start, samples.stop, AT_ONCE):
        n = min(AT_ONCE, samples.stop - start)
        rows = Rows.table([1.0]).repeated(n, float(ask.options["noise_scale"]))
        (outcome,) = yield [round_(ask, replace(rows, sample=rows.sample + start))]
        (gradients,) = outcome.tap_gradients.values()
        equal = ask.options["weighting"] == "equal"
        for k in range(n):
            halves[(start + k) % 2].add(0.0 if equal else float(outcome.scores[k]), view.take(gradients[k]))


def _error(
    ask: Ask, view: View, activations: Floats, halves: Sequence[Means], maps: Mapping[str, Floats]
) -> dict[str, float]:
    """Half the distance between two halves for the spread; for the bias what their mean is off the whole.

    ReLU(D_1) lets noise around zero through at every place, and the sum over places does not average it out: a bias
    that falls as 1/n where derivatives are far from zero and as 1/sqrt(n) where they are not. With the exponent between
    the two, 3/4, going from n/2 to n shows 2^(3/4) - 1 of it.
    """
    first, second = (
        finished(ask, view, shares(activations, alpha(ask, activations, each))).attributions for each in halves
    )
    return {
        name: relative(
            norm2(first[name] - second[name]) / 4 + norm2((first[name] + second[name]) / 2 - map_) / (2**0.75 - 1) ** 2,
            map_,
        )
        for name, map_ in maps.items()
    }


METHOD = Method(
    "smooth_grad_cam_plus_plus",
    "Grad-CAM++ with its derivatives averaged over noisy copies of the input",
    plan,
    ("gradient",),
    (*OPTIONS, threshold(0.15), DERIVATIVES, *OWN, *PRECISION),
    paper="Omeiza et al. 2019, arXiv:1908.01224",
    needs=f"{NEEDS}; exact where the score is piecewise linear in it",
)
