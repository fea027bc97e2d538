"""What an audit finds out about one method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxplain.sanity.controls import INPUT_NOISE, SHUFFLED
from onnxplain.sanity.maps import Array
from onnxplain.sanity.verdict import Verdict


@dataclass(eq=False)
class Finding:
    """Similarities of the randomised models' maps to the trained one's, their controls, and what they come to."""

    method: str
    options: Mapping[str, Any]
    """As the method resolved them."""
    targets: list[Any]
    """Per image, what the trained model's map explains."""
    curves: dict[str, Array] = field(default_factory=dict)
    """Measure -> (levels, draws, images)."""
    controls: dict[str, dict[str, Array]] = field(default_factory=dict)
    """Control -> measure -> (draws or 1, images)."""
    shown: list[list[Array]] = field(default_factory=list)
    """Per image kept: signed maps without channels, the trained model's and then one per level, of the first draw."""
    verdict: Verdict | None = None

    @property
    def null(self) -> str:
        """The control that its similarities are held against."""
        return INPUT_NOISE if INPUT_NOISE in self.controls else SHUFFLED
