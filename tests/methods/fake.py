"""An engine of a few lines of numpy: it evaluates analytic functions on rows, and counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import Layer, Manifest, TensorSpec
from onnxplain.methods import METHODS
from onnxplain.methods.method import Ask, Method, Plan, Reduced
from onnxplain.rows import Moments, Outcome, Round

Array = NDArray[np.float64]
Gradients = Callable[[Mapping[str, Array]], Mapping[str, Array]]


@dataclass
class FakeEngine:
    """``gradients[rules]`` maps one row's tensors to gradients; ``taps`` to a layer's activations and gradients."""

    gradients: Mapping[str, Gradients]
    x: Mapping[str, Array]
    baseline: Mapping[str, Array] | None = None
    taps: Callable[[Mapping[str, Array]], tuple[Array, Array]] | None = None
    score: Callable[[Mapping[str, Array]], float] | None = None
    rounds: list[Round] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return sum(len(each.rows) for each in self.rounds)

    def run(self, plan: Plan) -> Reduced:
        outcomes: Sequence[Outcome] | None = None
        while True:
            try:
                rounds = next(plan) if outcomes is None else plan.send(outcomes)
            except StopIteration as stop:
                reduced: Reduced = stop.value
                return reduced
            self.rounds += rounds
            outcomes = [self.outcome(each) for each in rounds]

    def outcome(self, round_: Round) -> Outcome:
        rows, n = round_.rows, len(round_.rows)
        points, displacements = zip(*(self._point(round_, k) for k in range(n)), strict=True)
        zeros = np.zeros(n)
        scores = zeros if self.score is None else np.array([self.score(each) for each in points])
        outcome = Outcome(n, scores, zeros.astype(np.int64))
        if round_.purpose.taps:
            assert self.taps is not None
            (name,) = round_.purpose.taps
            pairs = [self.taps(each) for each in points]
            outcome = replace(
                outcome,
                taps={name: np.stack([a for a, _ in pairs])},
                tap_gradients={name: np.stack([g for _, g in pairs])},
            )
        if not round_.purpose.wrt:
            return outcome
        rules = round_.purpose.rules
        assert rules is not None
        grads = [self.gradients[rules](each) for each in points]
        moments, jumps = {}, {}
        for tensor in round_.purpose.wrt:
            g = np.stack([each[tensor] for each in grads])
            if rows.multiply:
                g = g * np.stack([each[tensor] for each in displacements])
            moments[tensor] = _moments(g, rows.weight, rows.sample, rows.check)
            same = np.concatenate([[False], np.diff(rows.sample) == 0])
            away = np.concatenate([np.zeros_like(g[:1]), np.diff(g, axis=0)]).reshape(n, -1)
            jumps[tensor] = np.where(same, (away**2).sum(axis=1), 0.0)
        return replace(outcome, moments=moments, jumps=jumps)

    def _point(self, round_: Round, k: int) -> tuple[dict[str, Array], dict[str, Array]]:
        rows, points, away = round_.rows, {}, {}
        for place, (tensor, x) in enumerate(self.x.items()):
            noise = np.random.default_rng([int(rows.sample[k]), place]).standard_normal(x.shape)
            b = np.zeros_like(x) if self.baseline is None else self.baseline[tensor]
            scale = float(x.max() - x.min()) if x.size > 1 else 1.0
            away[tensor] = x + rows.noise[k] * scale * noise - b
            points[tensor] = b + rows.alpha[k] * away[tensor]
        return points, away


def _moments(g: Array, weight: Any, sample: Any, check: Any) -> Moments:
    shape = (-1,) + (1,) * (g.ndim - 1)
    numbers = np.unique(sample)
    maps = [(g * weight.reshape(shape))[sample == number].sum(axis=0) for number in numbers]
    away = [each - maps[0] for each in maps]
    return Moments(
        n=len(maps),
        first=maps[0],
        sum=np.sum(away, axis=0),
        squares=np.sum([each**2 for each in away], axis=0),
        check=(g * check.reshape(shape)).sum(axis=0),
    )


def manifest(
    tensors: Mapping[str, Array], *, kinks: tuple[str, ...] = ("Relu",), layers: tuple[Layer, ...] = ()
) -> Manifest:
    specs = tuple(TensorSpec(name, "float32", ("N", *x.shape)) for name, x in tensors.items())
    output = TensorSpec("y", "float32", ("N", 1))
    return Manifest(
        inputs=specs,
        outputs=(output,),
        explained=("y",),
        default_output="y",
        differentiated=specs,
        stands_for={name: name for name in tensors},
        rules=("gradient", "guided", "deconvnet"),
        gradients={"gradient": {layer.tensor: f"d/{layer.tensor}" for layer in layers}},
        layers=layers,
        rows="independent",
        kinks=kinks,
    )


def ask(method: str, tensors: Mapping[str, Array], about: Manifest | None = None, **options: Any) -> Ask:
    """The method's own options and its base's with their defaults, and those given."""
    chosen: list[Method] = [METHODS[method]]
    if "base" in {option.name for option in chosen[0].options}:
        chosen.append(METHODS[options.get("base", "gradient")])
    defaults = {option.name: option.default for each in reversed(chosen) for option in each.options}
    assert set(options) <= set(defaults), "a test gives an option that the method does not have"
    about = about or manifest(tensors)
    return Ask(
        options={**defaults, **options},
        manifest=about,
        tensors=tuple(TensorSpec(name, "float32", x.shape) for name, x in tensors.items()),
        output="y",
        layer=about.layer(options["layer"]) if options.get("layer") else None,
        base=chosen[1] if len(chosen) > 1 else None,
    )
