"""One request's work at the engine: jobs submitted together, waited for, and given up together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from onnxplain.errors import BadRequest, Cancelled, DeadlineExceeded
from onnxplain.request.options import is_finite
from onnxplain.rows import Job, Outcome

Submit = Callable[[Job, Callable[[], bool]], Future[Outcome]]
Progress = Callable[[int, int], None]
LATE = "the deadline passed before the explanation was done: ask for fewer rows, or wait longer"


@dataclass
class Work:
    """Runs jobs until the caller goes away or the deadline passes; the engine asks between runs.

    ``deadline`` is a reading of time.monotonic(). ``progress`` is told (rows done, rows asked for so far).
    """

    submit: Submit
    cancelled: Callable[[], bool] | None = None
    deadline: float | None = None
    progress: Progress | None = None
    n_rows: int = 0
    nonfinite: int = 0
    _done: int = field(default=0, repr=False)
    _failed: bool = field(default=False, repr=False)

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcomes in order. Raises any job's first error, Cancelled or DeadlineExceeded; the rest is dropped."""
        self.n_rows += sum(len(job.round.rows) for job in jobs)
        futures = [self.submit(job, self._stopped) for job in jobs]
        rows = {future: len(job.round.rows) for future, job in zip(futures, jobs, strict=True)}
        try:
            pending = set(futures)
            while pending:
                ready, pending = wait(pending, self._left(), FIRST_COMPLETED)
                if not ready:
                    raise DeadlineExceeded(LATE)
                for future in ready:
                    outcome = future.result()
                    self.nonfinite += outcome.nonfinite
                    self._done += rows[future]
                if self.progress is not None:
                    self.progress(self._done, self.n_rows)
        except Cancelled as error:
            self._failed = True
            if self._late() and not (self.cancelled is not None and self.cancelled()):
                raise DeadlineExceeded(LATE) from error
            raise
        except BaseException:
            self._failed = True
            raise
        return [future.result() for future in futures]

    def _stopped(self) -> bool:
        return self._failed or self._late() or (self.cancelled is not None and self.cancelled())

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _left(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0.0)


def deadline(timeout: float | None) -> float | None:
    """Seconds from now as a deadline. Raises BadRequest where they are not a positive number."""
    if timeout is None:
        return None
    if not is_finite(timeout) or timeout <= 0:
        raise BadRequest(f"timeout={timeout!r}: give a positive number of seconds")
    return time.monotonic() + timeout
