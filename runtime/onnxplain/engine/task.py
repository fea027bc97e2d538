"""One job on its way: how far it is, and what its runs gave so far."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from onnxplain.engine.moments import RESULT
from onnxplain.engine.session import Array
from onnxplain.errors import Cancelled, LimitExceeded, OnnxplainError
from onnxplain.rows import Floats, Job, Moments, Outcome


def translated(error: Exception) -> OnnxplainError:
    """What a job is told of ``error``: our own errors as they are, anything else as what it means to the caller."""
    if isinstance(error, OnnxplainError):
        return error
    if isinstance(error, MemoryError):
        return LimitExceeded(
            f"out of memory: ask for fewer rows with layers returned per row, or smaller inputs ({error})"
        )
    return OnnxplainError(f"This is a bug in onnxplain: {error!r}")


@dataclass(eq=False)
class Task:
    """A job, the future that waits for it, and the per-row numbers that came back. Owned by the scheduler's thread."""

    job: Job
    future: Future[Outcome]
    cancelled: Callable[[], bool]
    arrived: float
    number: int = field(default_factory=itertools.count().__next__)
    """Never used twice in a process: what is kept on a device is kept under it."""
    done: int = 0
    nonfinite: int = 0
    rows: dict[str, Array] = field(default_factory=dict)
    maps: dict[str, dict[str, Floats]] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        return len(self.job.round.rows) - self.done

    def is_gone(self) -> bool:
        """Does nobody wait for it any more? Fails the future then. Asks the caller: never under a lock."""
        try:
            gone = self.future.done() or self.cancelled()
        except Exception as error:
            self.fail(OnnxplainError(f"asking whether a job was cancelled failed: {error!r}"))
            return True
        if gone:
            self.fail(Cancelled("the caller went away before the job was done"))
        return gone

    def succeed(self, outcome: Outcome) -> None:
        """Give the future its outcome, unless it was cancelled or failed by someone else meanwhile."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """Fail the future, unless it has an answer already."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def keep_rows(self, name: str, start: int, values: Array) -> None:
        """Store what a run gave for rows ``start`` and on under ``name``; the whole array is made with the first."""
        if name not in self.rows:
            self.rows[name] = np.empty((len(self.job.round.rows), *values.shape[1:]), values.dtype)
        self.rows[name][start : start + len(values)] = values

    def outcome(self, shapes: Mapping[str, tuple[int, ...]]) -> Outcome:
        """The finished outcome; ``shapes``: of one row, per differentiated tensor."""
        rows = self.job.round.rows
        n_samples = int(np.count_nonzero(np.diff(rows.sample))) + 1

        def moments(tensor: str, parts: Mapping[str, Floats]) -> Moments:
            maps = {part: np.array(parts[part]).reshape(shapes[tensor]) for part in RESULT}
            return Moments(n_samples, maps["first"], maps["sum"], maps["squares"], maps["check"])

        purpose = self.job.round.purpose
        return Outcome(
            n_rows=len(rows),
            scores=self.rows["score"].astype(np.float64),
            top=self.rows["top"].astype(np.int64),
            moments={tensor: moments(tensor, parts) for tensor, parts in self.maps.items()},
            jumps={t: self.rows[f"jump/{t}"].astype(np.float64) for t in self.maps},
            taps={t: self.rows[f"tap/{t}"] for t in purpose.taps},
            tap_gradients={t: self.rows[f"tap/gradient/{t}"] for t in purpose.tap_gradients},
            nonfinite=self.nonfinite,
        )
