"""The courses of a request's rows as one explanation, with what a reader must be warned of."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from onnxplain.artifact import Manifest
from onnxplain.explanation import Explanation
from onnxplain.methods.method import Reduced
from onnxplain.request.answers import Course
from onnxplain.request.options import Chosen
from onnxplain.request.targets import Output, returned
from onnxplain.request.work import Work

GATED = frozenset({"guided", "deconvnet"})
SHOWN = 5
"""Names or rows that a warning lists."""


def explanation(
    manifest: Manifest, chosen: Chosen, output: Output, courses: Sequence[Course], work: Work, provider: str
) -> Explanation:
    """Everything by input name: a map of an embedding stands for its integer input."""
    done = [(course, course.reduced) for course in courses if course.reduced is not None]
    maps = [reduced for _, reduced in done]
    names = {tensor: manifest.stands_for[tensor] for tensor in maps[0].attributions}
    scores = np.array([course.scores[1.0] for course, _ in done])
    bases = np.array([course.scores[0.0] for course, _ in done]) if chosen.complete else None
    return Explanation(
        attributions={name: _stacked([each.attributions[tensor] for each in maps]) for tensor, name in names.items()},
        scores=scores,
        baseline_scores=bases,
        targets=[returned(output, course.target) for course, _ in done],
        convergence_delta=None if bases is None else np.array([_total(each) for each in maps]) - (scores - bases),
        error={name: np.array([each.error[tensor] for each in maps]) for tensor, name in names.items() if maps[0].error}
        or None,
        n_rows=work.n_rows,
        seed=chosen.seed,
        converged=np.array([each.converged for each in maps]),
        warnings=list(warnings(manifest, chosen, courses, maps, work)),
        options={name: _plain(value) for name, value in chosen.options.items()},
        method=chosen.method.name,
        output=chosen.output,
        model_digest=manifest.digest,
        provider=provider,
        versions=versions(),
        extras={name: _stacked([each.extras[name] for each in maps]) for name in maps[0].extras},
    )


def _stacked(maps: Sequence[Any]) -> Any:
    return np.stack(maps).astype(np.float32)


def _total(reduced: Reduced) -> float:
    return float(sum(np.sum(each, dtype=np.float64) for each in reduced.attributions.values()))


def _plain(value: Any) -> Any:
    """Baselines that are arrays are named by their shape: the caller has them."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (np.ndarray, list, tuple)):
        return f"array {list(np.shape(value))}"
    return value.item() if isinstance(value, np.generic) else value


def warnings(
    manifest: Manifest, chosen: Chosen, courses: Sequence[Course], maps: Sequence[Reduced], work: Work
) -> list[str]:
    """What is true of the maps and does not show in them."""
    said = []
    rules = {each for method in (chosen.method, chosen.base) if method is not None for each in method.rules}
    if rules & GATED and not manifest.gates:
        said.append("the model has no activations that this method treats in its own way: this is the plain gradient")
    if manifest.rows == "coupled" and len(courses) > 1:
        said.append("the rows of this model influence each other: every row was explained as if it came alone")
    if work.nonfinite:
        said.append(f"{work.nonfinite} of {work.n_rows} rows had gradients that are not finite: taken as zero")
    unknown = [str(k) for k, each in enumerate(courses) if not np.all(np.isfinite(list(each.scores.values())))]
    if unknown:
        said.append(f"the model's output is not finite, of row {_listed(unknown)}")
    if manifest.zero_gradient:
        said.append(f"piecewise constant, so that no gradient passes: {_listed(manifest.zero_gradient)}")
    unreachable = [manifest.stands_for.get(each, each) for each in manifest.unreachable]
    if unreachable:
        said.append(f"cannot influence the output, so that its map is zero: {_listed(unreachable)}")
    constant = (
        sorted({name for course in courses for name in course.subject.constant})
        if "noise_scale" in chosen.options
        else []
    )
    if constant:
        said.append(f"constant in a row, so that noise as a fraction of max - min is none there: {_listed(constant)}")
    zero = [str(k) for k, each in enumerate(maps) if not any(np.any(map_) for map_ in each.attributions.values())]
    if zero:
        said.append(f"the map is zero everywhere, of row {_listed(zero)}")
    stopped = [str(k) for k, each in enumerate(maps) if not each.converged]
    if stopped:
        said.append(
            f"stopped by max_rows={chosen.options['max_rows']} before the tolerance was reached, row {_listed(stopped)}"
        )
    return said


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in ("onnxplain", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed, or onnxplain run from its folder
    return tuple(found)


def versions() -> dict[str, str]:
    """Package -> version of what made the result."""
    return dict(_versions())
