"""The four explanations that are measured, with the options that make them the same as Captum's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One method of one request; ``n_rows`` points at which it evaluates the model."""

    method: str
    n_rows: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    same_numbers: bool = True
    """Are both maps the same? Noise is drawn by different generators."""

    @property
    def label(self) -> str:
        return self.method if self.n_rows == 1 else f"{self.method}, {self.n_rows} rows"

    def call(self, target: int, layer: str) -> dict[str, Any]:
        """Keyword arguments of ``explain``; ``layer`` is for Grad-CAM alone."""
        at = {"layer": layer} if self.method == "grad_cam" else {}
        return {"method": self.method, "target": target, **self.options, **at}


TASKS = (
    Task("gradient"),
    Task("integrated_gradients", 50, {"n_steps": 50, "quadrature": "midpoint", "baseline": "zero"}),
    Task("smoothgrad", 50, {"n_samples": 50, "noise_scale": 0.15, "seed": 1}, same_numbers=False),
    Task("grad_cam"),
)
