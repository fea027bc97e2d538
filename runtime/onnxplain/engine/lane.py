"""A lane: jobs that share runs, because their program, row shapes and inputs without a row axis are the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np

from onnxplain.engine import feeds as tables
from onnxplain.engine import packing
from onnxplain.engine.check import check_job, check_target
from onnxplain.engine.moments import RESULT, carried_names
from onnxplain.engine.session import Array, Handle, Session
from onnxplain.engine.store import Key, Loaded
from onnxplain.engine.task import Task, translated
from onnxplain.errors import BadRequest, OnnxplainError

PER_ROW = ("score", "top")


class Lane:
    """Tasks waiting (any thread adds, under the scheduler's lock) and active (the scheduler's thread alone)."""

    def __init__(self, key: Hashable, needs: Key, sizes: tuple[int, ...]) -> None:
        self.key = key
        self.needs = needs
        self.sizes = sizes
        self.waiting: deque[Task] = deque()
        self.active: list[Task] = []
        self.served = float("-inf")
        self._positions: dict[int, int] = {}
        self._state: dict[str, Handle] = {}
        self._cached: dict[str, tuple[Hashable, Handle]] = {}

    def view(self) -> packing.Lane:
        return packing.Lane(
            key=self.key,
            active=tuple(task.pending for task in self.active),
            waiting=tuple(task.pending for task in self.waiting),
            oldest=self.waiting[0].arrived if self.waiting else float("inf"),
            served=self.served,
            sizes=self.sizes,
        )

    @property
    def tasks(self) -> list[Task]:
        """All of them, active first."""
        return [*self.active, *self.waiting]

    def remove(self, task: Task) -> None:
        """Forget a task that nobody waits for."""
        if task in self.active:
            self.active.remove(task)
        elif task in self.waiting:
            self.waiting.remove(task)

    def join(self, n: int) -> list[Task]:
        """Make the first ``n`` waiting tasks active; returns those whose future was not cancelled meanwhile."""
        joining = [self.waiting.popleft() for _ in range(min(n, len(self.waiting)))]  # some may have been taken away
        return [task for task in joining if task.future.set_running_or_notify_cancel()]

    def admit(self, tasks: Sequence[Task], loaded: Loaded) -> list[Task]:
        """Those of ``tasks`` that fit the program; the others' futures fail."""
        fitting = []
        for task in tasks:
            try:
                check_job(loaded.program, task.job)
            except OnnxplainError as error:
                task.fail(error)
            else:
                fitting.append(task)
        return fitting

    def reset(self) -> None:
        """Forget the active tasks and all that is kept for them (after a failed run)."""
        self.active = []
        self._positions, self._state, self._cached = {}, {}, {}

    def run(self, loaded: Loaded, rows: Sequence[int], size: int) -> None:
        """One run: the next ``rows[i]`` rows of the i-th active task, padded to ``size``."""
        program, session = loaded.program, loaded.session
        slots = [
            tables.Slot(t.job, t.done, t.done + n, self._positions.get(t.number))
            for t, n in zip(self.active, rows, strict=True)
        ]
        pack = tables.Pack(tuple(slots), size)
        names = [tensor.name for tensor in program.path] if program.has_moments else []
        feeds = self._feeds(loaded, pack)
        wanted = [*PER_ROW, "size", *(f"tap/{t}" for t in program.purpose.taps)]
        wanted += [f"tap/gradient/{t}" for t in program.purpose.tap_gradients]
        keep: list[str] = []
        if names:
            wanted += ["finite", *(f"jump/{t}" for t in names)]
            if any(slot.is_last for slot in slots):
                wanted += [f"done/{part}/{t}" for t in names for part in RESULT]
            if not all(slot.is_last for slot in slots):
                keep = [out for t in names for out in carried_names(t)]
        results = session.run(feeds, wanted, keep)
        self._state = {into: results[out] for t in names for out, into in carried_names(t).items() if out in results}
        self._positions = {t.number: q for q, t in enumerate(self.active)} if keep else {}
        self._collect(pack, names, results)

    def _collect(self, pack: tables.Pack, names: Sequence[str], results: dict[str, Array]) -> None:
        size, finished = int(results["size"][0]), 0
        per_row = {k: v for k, v in results.items() if k in PER_ROW or k.startswith(("jump/", "tap/"))}
        going_on = []
        for task, slot, offset in zip(self.active, pack.slots, pack.offsets, strict=False):
            part = slice(offset, offset + slot.stop - slot.start)
            try:
                check_target(task.job.target, size)
                for name, values in per_row.items():
                    task.keep_rows(name, slot.start, _by_row(values, pack.size)[part])
            except (OnnxplainError, MemoryError) as error:
                task.fail(translated(error))
            if names:
                task.nonfinite += int(np.count_nonzero(~results["finite"][part]))
            task.done = slot.stop
            if slot.is_last:
                for t in names:
                    task.maps[t] = {x: results[f"done/{x}/{t}"][finished] for x in RESULT}
                finished += 1
                if not task.future.done():
                    task.succeed(task.outcome({t: task.job.inputs[t].shape for t in names}))
            if not task.future.done():
                going_on.append(task)
        self.active = going_on

    def _feeds(self, loaded: Loaded, pack: tables.Pack) -> dict[str, Array | Handle]:
        program, put = loaded.program, partial(self._put, loaded.session)
        who = tuple(task.number for task in self.active)
        feeds: dict[str, Array | Handle] = {**tables.row_feeds(program, pack), **tables.target_feeds(program, pack)}
        feeds["row/baseline"] = np.zeros(pack.size, np.int64)
        if program.path:
            used, feeds["row/baseline"] = tables.used_baselines(pack)
            which = (who, tuple(own.tobytes() for own in used))
            for tensor in program.path:
                name = f"baseline/{tensor.name}"
                feeds[name] = put(name, which, partial(tables.baselines, tensor.name, pack, used))
        for name in (*(t.name for t in program.path), *(held.name for held in program.held if held.by_request)):
            feeds[f"input/{name}"] = put(f"input/{name}", who, partial(_stack, pack, name))
        for held in program.held:
            if not held.by_request:
                feeds[f"input/{held.name}"] = self.active[0].job.inputs[held.name]
        if program.has_moments:
            feeds.update(tables.plan_feeds(program, pack))
            feeds.update(self._state or tables.empty_state(program))
        return feeds

    def _put(self, session: Session, name: str, token: Hashable, make: Callable[[], Array]) -> Handle:
        """Upload once for as long as the run's requests stay the same."""
        if name not in self._cached or self._cached[name][0] != token:
            self._cached[name] = (token, session.put(make()))
        return self._cached[name][1]


def _stack(pack: tables.Pack, name: str) -> Array:
    return pack.per_request([slot.job.inputs[name] for slot in pack.slots])


def _by_row(values: Array, n_rows: int) -> Array:
    """Taps of layers that fold other axes into the first: (R * k, ...) as (R, k, ...)."""
    if values.shape[0] == n_rows:
        return values
    if values.shape[0] % n_rows:
        raise BadRequest(
            f"a layer's first axis has length {values.shape[0]} in a run of {n_rows} rows: it is not the row axis"
        )
    return values.reshape(n_rows, values.shape[0] // n_rows, *values.shape[1:])
