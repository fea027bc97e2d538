"""The answers of a request's rows as one explanation."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from onnxplain.artifact import Manifest
from onnxplain.explanation import Explanation
from onnxplain.methods.method import Reduced
from onnxplain.request.answers import Answer
from onnxplain.request.caveats import caveats
from onnxplain.request.options import Chosen
from onnxplain.request.targets import Output, returned
from onnxplain.request.work import Work


def explanation(
    manifest: Manifest, chosen: Chosen, output: Output, answers: Sequence[Answer], work: Work, provider: str
) -> Explanation:
    """Everything by input name: a map of an embedding stands for its integer input."""
    maps = [each.reduced for each in answers]
    names = {tensor: manifest.stands_for[tensor] for tensor in maps[0].attributions}
    scores = np.array([each.scores[1.0] for each in answers])
    bases = np.array([each.scores[0.0] for each in answers]) if chosen.complete else None
    return Explanation(
        attributions={name: _stacked([each.attributions[tensor] for each in maps]) for tensor, name in names.items()},
        scores=scores,
        baseline_scores=bases,
        targets=[returned(output, each.target) for each in answers],
        convergence_delta=None if bases is None else np.array([_total(each) for each in maps]) - (scores - bases),
        error={name: np.array([each.error[tensor] for each in maps]) for tensor, name in names.items() if maps[0].error}
        or None,
        n_rows=work.n_rows,
        seed=chosen.seed,
        converged=np.array([each.converged for each in maps]),
        warnings=list(caveats(manifest, chosen, answers, work)),
        options={name: _plain(value) for name, value in chosen.options.items()},
        method=chosen.method.name,
        output=chosen.output,
        model_digest=manifest.digest,
        provider=provider,
        versions=versions(),
        extras={name: _padded([each.extras[name] for each in maps]) for name in maps[0].extras},
    )


def _stacked(maps: Sequence[Any]) -> Any:
    return np.stack(maps).astype(np.float32)


def _padded(lists: Sequence[Any]) -> Any:
    """Rows with fewer entries than others (boxes) are filled up with zeros."""
    longest = max(len(each) for each in lists)
    return _stacked([np.pad(each, [(0, longest - len(each)), *[(0, 0)] * (each.ndim - 1)]) for each in lists])


def _total(reduced: Reduced) -> float:
    return float(sum(np.sum(each, dtype=np.float64) for each in reduced.attributions.values()))


def _plain(value: Any) -> Any:
    """Baselines that are arrays are named by their shape: the caller has them. Indices are few."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim < 3:
        return value.tolist()
    if isinstance(value, (np.ndarray, list, tuple)):
        return f"array {list(np.shape(value))}"
    return value.item() if isinstance(value, np.generic) else value


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
