"""The demo's explanations: five methods for every picture, through the client, with what each one cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxplain.cli.demo.subjects import Photograph, Subject
from onnxplain.overlay import Drawn, draw
from onnxplain.picture import Seen, prepare

if TYPE_CHECKING:
    from onnxplain.client import RemoteModel
    from onnxplain.explain import Explanation

METHODS: tuple[tuple[str, str], ...] = (
    ("gradient", "Where would a small change of a pixel move the score? Sharp and noisy."),
    ("gradient_x_input", "The gradient times the pixel's value as the network gets it."),
    ("integrated_gradients", "Gradients summed on the way from the baseline to the picture: they add up to the score."),
    ("smoothgrad", "The mean gradient over noisy copies of the picture: the gradient without its grain."),
    ("grad_cam", "Which places of an inner layer spoke for the answer: coarse and calm."),
)
"""The five methods side by side, and in a sentence what each one asks."""


@dataclass(frozen=True)
class Panel:
    """One method on one picture: the drawing and the numbers under it."""

    method: str
    about: str
    options: Mapping[str, Any]
    drawn: Drawn
    n_rows: int
    time: str
    """Of the call, as the client saw it, with its unit."""
    gap: float | None
    """Sum of the map minus the score difference, as a fraction of that; None where a method promises none."""
    error: float | None
    """The map's own estimated relative L2 error; None where it is exact or nothing can be said of it."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What the network said about one picture, and the five explanations of it."""

    photograph: Photograph
    seen: Seen
    label: str
    score: float
    """The explained output of the answer: a logit."""
    probability: float | None
    provider: str
    versions: Mapping[str, str]
    panels: tuple[Panel, ...]


def explain(
    model: RemoteModel, subject: Subject, photograph: Photograph, probabilities: str | None, done: Callable[[], None]
) -> Answer:
    """Explain one picture by all methods through a client's model; ``done`` is called after each.

    ``probabilities`` is the model's probability output: the score of its gradient is the answer's probability.
    """
    seen = prepare(photograph.image, subject.preprocessing)
    chosen: dict[str, dict[str, Any]] = {
        "integrated_gradients": {"baseline": subject.baseline},
        "smoothgrad": {"seed": 1},  # the same page every time
    }
    if subject.layer is not None:
        chosen["grad_cam"] = {"layer": subject.layer}
    # The five methods run two programs; the first call of each makes it, which is not what a call costs.
    for method in ("gradient", "grad_cam"):
        model.explain(seen.array, method=method, **chosen.get(method, {}))
    panels, explanation = [], None
    for method, about in METHODS:
        options = chosen.get(method, {})
        start = time.perf_counter()
        explanation = model.explain(seen.array, method=method, **options)
        panels.append(_panel(explanation, about, options, seen, time.perf_counter() - start))
        done()
    assert explanation is not None
    target = int(explanation.targets[0])
    probability = None
    if probabilities is not None:
        probability = float(model.explain(seen.array, target=target, output=probabilities).scores[0])
    return Answer(
        photograph=photograph,
        seen=seen,
        label=subject.labels[target],
        score=float(explanation.scores[0]),
        probability=probability,
        provider=explanation.provider,
        versions=explanation.versions,
        panels=tuple(panels),
    )


def _panel(explanation: Explanation, about: str, options: Mapping[str, Any], seen: Seen, seconds: float) -> Panel:
    ((name, maps),) = explanation.attributions.items()
    gap = error = None
    if explanation.convergence_delta is not None and explanation.baseline_scores is not None:
        moved = float(explanation.scores[0] - explanation.baseline_scores[0])
        gap = float(explanation.convergence_delta[0]) / moved if moved else None
    if explanation.error is not None and name in explanation.error:
        error = float(explanation.error[name][0])
    return Panel(
        method=explanation.method,
        about=about,
        options=options,
        drawn=draw(np.asarray(maps[0]), seen.region, layout=seen.layout, method=explanation.method),
        n_rows=explanation.n_rows,
        time=f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s",
        gap=gap if gap is not None and math.isfinite(gap) else None,
        error=error if error is not None and math.isfinite(error) else None,
        warnings=tuple(explanation.warnings),
    )
