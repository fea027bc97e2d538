"""A result as a file: every array raw, everything else as JSON beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxplain.errors import OnnxplainError

if TYPE_CHECKING:
    from onnxplain.explain import Explanation


def record(result: Explanation) -> dict[str, Any]:
    """What a result is, without its arrays, as plain JSON values."""
    return {
        "method": result.method,
        "output": result.output,
        "targets": [_plain(value) for value in result.targets],
        "scores": [float(score) for score in result.scores],
        "options": {name: _plain(value) for name, value in result.options.items()},
        "n_rows": int(result.n_rows),
        "seed": int(result.seed),
        "warnings": list(result.warnings),
        "model_digest": result.model_digest,
        "provider": result.provider,
        "versions": dict(result.versions),
    }


def write(path: Path, result: Explanation) -> None:
    """Write an .npz, to be read with ``numpy.load``; ``record`` in it is JSON text.

    Per input ``attributions/NAME`` and ``error/NAME``; what else the method gives as ``extras/NAME``; ``scores`` and
    ``converged``; where the method has them ``baseline_scores`` and ``convergence_delta``. Raises OnnxplainError where
    it cannot be written.
    """
    arrays: dict[str, Any] = {f"attributions/{name}": values for name, values in result.attributions.items()}
    arrays |= {f"error/{name}": values for name, values in (result.error or {}).items()}
    arrays |= {f"extras/{name}": values for name, values in result.extras.items()}
    for name in ("scores", "converged", "baseline_scores", "convergence_delta"):
        value = getattr(result, name)
        if value is not None:
            arrays[name] = np.asarray(value)
    try:
        with path.open("wb") as file:  # np.savez given a name would add .npz to another suffix without a word
            np.savez(file, record=np.array(json.dumps(record(result))), **arrays)
    except OSError as error:
        raise OnnxplainError(f"{path}: the result cannot be written ({error.strerror})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "dtype": str(value.dtype)} if value.size > 16 else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
