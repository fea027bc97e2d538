"""What an explanation is: maps, scores, and everything needed to judge and repeat it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Explanation:
    """Of n input rows. Maps are raw and signed; nothing was done to them for the eye."""

    attributions: dict[str, NDArray[np.float32]]
    """Per explained input (n, ...). A CAM has an axis of 1 in place of the channels; integer inputs have the map of the
    tensor that they are embedded to."""
    scores: NDArray[np.float64]
    """(n,) the explained score of every row."""
    targets: list[Any]
    """Per row, as resolved: a class index, a position, a pair of these for a margin, or a weighting."""
    n_rows: int
    """Points at which the model was evaluated, over all rows; those that only give a score are counted too."""
    seed: int
    """Of the noise: with it and ``options`` the result can be made again."""
    converged: NDArray[np.bool_]
    """(n,) False where a cap stopped a requested precision."""
    options: dict[str, Any]
    """As resolved, defaults included."""
    method: str
    output: str
    model_digest: str
    provider: str
    """"cpu" or "cuda"."""
    versions: dict[str, str]
    baseline_scores: NDArray[np.float64] | None = None
    """(n,) the score at the baseline; None where the method has none."""
    convergence_delta: NDArray[np.float64] | None = None
    """(n,) sum of all attributions minus (score - baseline score); None where the method promises no completeness."""
    error: dict[str, NDArray[np.float64]] | None = None
    """Per input (n,): the map's estimated relative L2 error, nan where unknown; None where maps are exact."""
    warnings: list[str] = field(default_factory=list)
    extras: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """What a method gives besides, (n, ...). CAMs: ``layer_map`` at the layer's resolution; ``mask/INPUT`` (n, height,
    width) of zeros and ones; ``boxes/INPUT`` (n, most, 5) of its components, largest first: top, left, bottom, right
    (exclusive) and places, zeros where a row has fewer; ``maps`` (n, maps, ...) where asked for."""
