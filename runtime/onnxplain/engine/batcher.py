"""The scheduler: one thread per device that packs rows of many jobs into runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from onnxplain.engine import packing
from onnxplain.engine.lane import Lane
from onnxplain.engine.session import Session
from onnxplain.engine.store import Key, Source, Store
from onnxplain.engine.task import Task, translated
from onnxplain.errors import OnnxplainError, Unavailable
from onnxplain.rows import Job, Outcome

logger = logging.getLogger(__name__)

CACHE_BYTES = 4 * 2**30
WATCH_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class _Running:
    """The run in progress, as the watcher sees it."""

    tasks: tuple[Task, ...]
    session: Session


class Scheduler:
    """Jobs in, futures out. ``max_wait``: seconds a job may wait for company; ``cache_bytes``: of sessions.

    A failure in a run fails the futures of that run's jobs and no other; the thread goes on.
    """

    def __init__(self, *, max_wait: float = 0.0, cache_bytes: int = CACHE_BYTES) -> None:
        self._max_wait = max_wait
        self._store = Store(cache_bytes)
        self._lanes: dict[Hashable, Lane] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._running: _Running | None = None
        self._busy = threading.Event()
        self._dropped: list[Source] = []
        self._thread = threading.Thread(target=self._loop, name="onnxplain-scheduler", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="onnxplain-watcher", daemon=True)
        self._thread.start()
        self._watcher.start()

    def submit(
        self, key: Hashable, needs: Key, sizes: tuple[int, ...], job: Job, cancelled: Callable[[], bool]
    ) -> Future[Outcome]:
        """Queue a job in the lane ``key``, whose program is ``needs`` and whose runs have ``sizes`` rows."""
        task = Task(job, Future(), cancelled, time.monotonic())
        with self._changed:
            if self._closing:
                task.future.set_exception(Unavailable("the engine is closed"))
                return task.future
            lane = self._lanes.setdefault(key, Lane(key, needs, sizes))
            lane.waiting.append(task)
            self._changed.notify_all()
        return task.future

    def forget(self, source: Source) -> None:
        """Fail what is queued for a model and drop its sessions."""
        with self._changed:
            left = _taken([lane for lane in self._lanes.values() if lane.needs[0] is source])
            self._dropped.append(source)
            self._changed.notify_all()
        _fail(left, Unavailable("the model was closed before the job was done"))

    def close(self, drain: bool = False) -> None:
        """Take no more jobs; finish those there are (``drain``) or fail them; end the thread. May be called twice."""
        with self._changed:
            self._closing = True
            left = [] if drain else _taken(list(self._lanes.values()))
            self._changed.notify_all()
        _fail(left, Unavailable("the engine was closed before the job was done"))
        for thread in (self._thread, self._watcher):
            if thread is not threading.current_thread():  # as when a future's callback drops the last engine
                thread.join()

    def _loop(self) -> None:
        while True:
            try:
                step = self._next()
                if step is None:
                    return
                self._execute(*step)
            except Exception as error:  # a bug of ours must not leave a future without an answer
                logger.exception("the scheduler failed")
                with self._changed:
                    left = _taken(list(self._lanes.values()))
                    self._lanes.clear()
                _fail(left, translated(error))

    def _next(self) -> tuple[Lane, packing.Run] | None:
        """Wait for the next run; None when closed and nothing is left."""
        while True:
            self._sweep()
            with self._changed:
                while self._dropped:
                    self._store.drop(self._dropped.pop())
                self._lanes = {k: x for k, x in self._lanes.items() if x.active or x.waiting}
                views = [lane.view() for lane in self._lanes.values()]
                # Whoever closes with draining does not wait for company.
                run = packing.choose(views, time.monotonic(), 0.0 if self._closing else self._max_wait)
                if isinstance(run, packing.Run):
                    self._busy.set()
                    return self._lanes[run.key], run
                if self._closing:
                    self._busy.set()
                    return None
                self._busy.clear()
                self._changed.wait(None if run is None else max(0.0, run - time.monotonic()))

    def _sweep(self) -> None:
        """Forget the jobs that nobody waits for. Callers are asked, and told, without the lock."""
        with self._changed:
            tasks = [(lane, task) for lane in self._lanes.values() for task in lane.tasks]
        gone = [(lane, task) for lane, task in tasks if task.is_gone()]
        with self._changed:
            for lane, task in gone:
                lane.remove(task)

    def _execute(self, lane: Lane, run: packing.Run) -> None:
        with self._changed:
            joining = lane.join(run.joining)
        try:
            loaded = self._store.get(lane.needs)
            joining = lane.admit(joining, loaded)
            lane.active += joining
            if not lane.active:
                return
            lane.served = time.monotonic()
            pending = [task.pending for task in lane.active]
            rows, size = packing.fit(pending, lane.sizes)
            with self._changed:
                self._running = _Running(tuple(lane.active), loaded.session)
            lane.run(loaded, rows, size)
        except Exception as error:
            failure = translated(error)
            if failure is not error:
                logger.exception("a run failed")
            _fail([*lane.active, *joining], failure)
            lane.reset()
        finally:
            with self._changed:
                self._running = None

    def _watch(self) -> None:
        """Stop a run in progress once nobody waits for any of its jobs."""
        while self._thread.is_alive():
            self._busy.wait()
            running = self._running
            if running is not None and all(_is_unwanted(task) for task in running.tasks):
                with self._changed:
                    if self._running is running:  # and not the next run of the same session
                        running.session.stop()
            time.sleep(WATCH_SECONDS)


def _is_unwanted(task: Task) -> bool:
    try:
        return task.future.done() or task.cancelled()
    except Exception:  # the scheduler's thread will ask again, and say so
        return False


def _taken(lanes: Sequence[Lane]) -> list[Task]:
    """All tasks of some lanes, of which none waits any more. Under the lock; their futures are answered after it."""
    tasks = [task for lane in lanes for task in lane.tasks]
    for lane in lanes:
        lane.waiting.clear()
    return tasks


def _fail(tasks: Sequence[Task], error: OnnxplainError) -> None:
    for task in tasks:
        task.fail(error)
