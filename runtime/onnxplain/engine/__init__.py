"""Runs rows of an artifact on ONNX Runtime: programs, packing, sessions. Knows no method."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType

import numpy as np

from onnxplain.artifact import Artifact
from onnxplain.engine import packing, session
from onnxplain.engine.batcher import Scheduler
from onnxplain.engine.check import check_rows, check_target
from onnxplain.engine.rowaxis import RowAxis
from onnxplain.engine.session import Array, OpenSession
from onnxplain.engine.store import Source
from onnxplain.engine.weights import check_weights
from onnxplain.errors import BadRequest, OnnxplainError, Unavailable
from onnxplain.rows import Job, Outcome

__all__ = ["Engine", "Scheduler"]

MAX_ROWS = {"cpu": 8, "cuda": 64}
"""Rows of a run unless told otherwise: enough to keep the device busy, few enough to fit."""


class Engine:
    """One model on one device. Thread-safe; a context manager.

    ``weights``: initializer name -> array to use in its place (the randomisation audit). ``scheduler``: shared by the
    engines of one device; without one, the engine has its own and closes it. Raises ProviderUnavailable where
    ``provider`` cannot be had, NotFound or BadRequest where ``weights`` do not fit the model.
    """

    def __init__(
        self,
        artifact: Artifact,
        provider: str = "auto",
        *,
        open_session: OpenSession = session.open_session,
        scheduler: Scheduler | None = None,
        max_rows: int | None = None,
        weights: Mapping[str, Array] | None = None,
    ) -> None:
        self._provider = session.resolve_provider(provider)
        check_weights(weights or {}, artifact.model.graph.initializers)
        self._axis = RowAxis.of(artifact.manifest)
        self._sizes = _sizes(self._axis, max_rows or MAX_ROWS[self._provider], self._provider)
        self._source = Source(artifact, self._provider, open_session, dict(weights or {}))
        self._scheduler = scheduler or Scheduler()
        close = self._scheduler.close if scheduler is None else _forget(self._scheduler, self._source)
        self._close = weakref.finalize(self, close)

    @property
    def provider(self) -> str:
        """ "cpu" or "cuda": what runs here."""
        return self._provider

    @property
    def max_rows(self) -> int:
        return self._sizes[-1]

    def submit(self, job: Job, cancelled: Callable[[], bool] | None = None) -> Future[Outcome]:
        """Queue a job; its future carries the outcome, or an OnnxplainError.

        ``cancelled`` is asked between runs; once it says yes the job is dropped and its future fails with Cancelled.
        """
        try:
            if not self._close.alive:
                raise Unavailable("the engine is closed")
            check_rows(job.round.rows)
            check_target(job.target, None)
            path = self._path(job)
            key = (self._source, job.round.purpose, path, self._signature(job, path))
        except OnnxplainError as error:
            failed: Future[Outcome] = Future()
            failed.set_exception(error)
            return failed
        needs = (self._source, job.round.purpose, path)
        return self._scheduler.submit(key, needs, self._sizes, job, cancelled or _never)

    def close(self) -> None:
        """Fail what is queued and give the sessions back."""
        self._close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _path(self, job: Job) -> tuple[str, ...]:
        """The tensors whose rows lie on a path: those differentiated; without any, those that the job brings."""
        wrt = job.round.purpose.wrt
        return wrt or tuple(t.name for t in self._source.artifact.manifest.differentiated if t.name in job.inputs)

    def _signature(self, job: Job, path: tuple[str, ...]) -> tuple[object, ...]:
        """What must agree to share a run: shapes and types of all inputs, values of those without a row axis."""
        shapes = tuple((name, value.dtype.str, value.shape) for name, value in sorted(job.inputs.items()))
        common = []
        for spec in self._source.artifact.manifest.inputs:
            if spec.name in job.inputs and spec.name not in path and not self._axis.has(spec.shape):
                value = np.ascontiguousarray(job.inputs[spec.name])
                common.append((spec.name, hashlib.sha256(value.tobytes()).digest()))
        return (shapes, tuple(common))


def _sizes(axis: RowAxis, max_rows: int, provider: str) -> tuple[int, ...]:
    if max_rows < 1:
        raise BadRequest(f"max_rows must be at least 1, got {max_rows}")
    if not axis.shared:
        return (1,)
    if axis.fixed is not None:
        return (axis.fixed,)
    # The CPU's kernels plan nothing for a shape: no padding needed.
    return packing.buckets(max_rows, exact=provider == "cpu")


def _forget(scheduler: Scheduler, source: Source) -> Callable[[], None]:
    return lambda: scheduler.forget(source)


def _never() -> bool:
    return False
