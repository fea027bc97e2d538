"""A model that explains at once, or waits at a gate: for what the server does around an explanation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxplain.artifact import Layer, Manifest, TensorSpec
from onnxplain.errors import BadRequest, Cancelled
from onnxplain.explain import Explanation

PATIENCE = 60.0
"""Seconds until a test that waits for something that never comes fails; nothing is measured by it."""


def manifest(digest: str = "d1") -> Manifest:
    x, y = TensorSpec("x", "float32", ("n", 3)), TensorSpec("y", "float32", ("n", 4))
    return Manifest(
        inputs=(x,),
        outputs=(y,),
        explained=("y",),
        default_output="y",
        differentiated=(x,),
        stands_for={"x": "x"},
        rules=("gradient",),
        gradients={"gradient": {"x": "gradient/x"}},
        layers=(Layer("dense", "Gemm", "h", ("n", 4)), Layer("unknown", "Custom", "u", None)),
        rows="independent",
        labels=("a", "b", "c", "d"),
        digest=digest,
    )


@dataclass
class FakeModel:
    """``attributions`` are ``factor * x``. At a closed gate explanations wait, and look whether they are cancelled."""

    factor: float = 1.0
    fails: Exception | None = None
    manifest: Manifest = field(default_factory=manifest)
    provider: str = "cpu"
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    cancelled: threading.Event = field(default_factory=threading.Event)
    closed: bool = False
    asked: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate.set()

    def explain(
        self,
        x: Any,
        method: str = "gradient",
        target: Any = "top",
        *,
        cancelled: Callable[[], bool] | None = None,
        **options: Any,
    ) -> Explanation:
        self.asked = {"x": x, "method": method, "target": target, **options}
        self.arrived.release()
        while not self.gate.wait(0.01):
            if cancelled is not None and cancelled():
                self.cancelled.set()
                raise Cancelled("the caller went away")
        if self.fails is not None:
            raise self.fails
        x = x if isinstance(x, np.ndarray) else x["x"]
        if x.ndim != 2 or x.shape[1] != 3:
            raise BadRequest(f"input 'x' has shape {list(x.shape)}, the model takes [n, 3]")
        n = len(x)
        return Explanation(
            attributions={"x": np.float32(self.factor) * x},
            scores=x.sum(axis=1, dtype=np.float64),
            baseline_scores=np.zeros(n) if method == "integrated_gradients" else None,
            targets=[1] * n,
            convergence_delta=np.full(n, 0.25) if method == "integrated_gradients" else None,
            error={"x": np.full(n, 0.125)},
            n_rows=n,
            seed=2**64 - 1,
            converged=np.ones(n, bool),
            warnings=["a warning"],
            options=dict(options),
            method=method,
            model_digest=self.manifest.digest,
            provider=self.provider,
            versions={"onnxplain": "0"},
            output="y",
        )

    def close(self) -> None:
        self.closed = True

    def shut(self) -> FakeModel:
        """Close the gate."""
        self.gate.clear()
        return self

    def wait_for(self, n: int) -> None:
        """Until ``n`` explanations have arrived since the last call."""
        for _ in range(n):
            assert self.arrived.acquire(timeout=PATIENCE), "no explanation arrived"
