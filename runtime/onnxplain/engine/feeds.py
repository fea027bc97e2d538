"""The host's side of a run: numpy tables that say which rows it holds and how they are summed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxplain.engine import noise
from onnxplain.engine.moments import STATE, accumulator
from onnxplain.engine.program import Program
from onnxplain.engine.session import Array
from onnxplain.rows import Ints, Job


@dataclass(frozen=True)
class Slot:
    """Rows ``start`` to ``stop`` of a job; ``before``: where its state stood in the run before, None if new."""

    job: Job
    start: int
    stop: int
    before: int | None

    @property
    def is_last(self) -> bool:
        return self.stop == len(self.job.round.rows)


@dataclass(frozen=True)
class Pack:
    """The slots of one run and its padded sizes; row r of the run is row ``r - offsets[q]`` of slot ``owner[r]``."""

    slots: tuple[Slot, ...]
    size: int

    @property
    def n_requests(self) -> int:
        return padded(len(self.slots))

    @property
    def counts(self) -> list[int]:
        return [slot.stop - slot.start for slot in self.slots]

    @property
    def offsets(self) -> list[int]:
        return [0, *np.cumsum(self.counts).tolist()]

    def per_row(self, parts: Sequence[Array]) -> Array:
        """Values of every slot's rows in one array, padded by repeating the last real row."""
        values = np.concatenate(parts)
        return np.concatenate([values, np.repeat(values[-1:], self.size - len(values), axis=0)])

    def per_request(self, parts: Sequence[Array]) -> Array:
        """One value of every slot, padded by repeating the last."""
        return np.stack([*parts, *[parts[-1]] * (self.n_requests - len(parts))])


def padded(n: int) -> int:
    """The next power of two: small axes take few sizes, so that memory plans are reused."""
    return 1 << (n - 1).bit_length() if n > 1 else 1


def row_feeds(program: Program, pack: Pack) -> dict[str, Array]:
    """The scalars of every row, but for the baselines."""
    rows = [slot.job.round.rows for slot in pack.slots]
    parts = [slice(slot.start, slot.stop) for slot in pack.slots]
    noises = pack.per_row([r.noise[p] for r, p in zip(rows, parts, strict=True)])
    feeds: dict[str, Array] = {
        "row/request": pack.per_row([np.full(n, q, np.int64) for q, n in enumerate(pack.counts)]),
        "run/noise": np.array(bool(np.any(noises != 0.0))),
    }
    for tensor in program.path:
        wide = tensor.wide.numpy()
        scale = [np.full(n, s.job.scale.get(tensor.name, 0.0)) for s, n in zip(pack.slots, pack.counts, strict=True)]
        feeds[f"row/alpha/{tensor.name}"] = pack.per_row([r.alpha[p] for r, p in zip(rows, parts, strict=True)]).astype(
            wide
        )
        feeds[f"row/sigma/{tensor.name}"] = (noises * pack.per_row(scale)).astype(wide)
        feeds[f"row/key/{tensor.name}"] = pack.per_row(
            [noise.keys(s.job.seed, tensor.name, r.sample[p]) for s, r, p in zip(pack.slots, rows, parts, strict=True)]
        )
    return feeds


def used_baselines(pack: Pack) -> tuple[tuple[Ints, ...], Ints]:
    """Per slot the baselines that its rows name, and per row its index into them all, one slot after the other."""
    used, index, start = [], [], 0
    for slot in pack.slots:
        own, where = np.unique(slot.job.round.rows.baseline[slot.start : slot.stop], return_inverse=True)
        used.append(own)
        index.append(where.astype(np.int64) + start)
        start += len(own)
    return tuple(used), pack.per_row(index)


def baselines(tensor: str, pack: Pack, used: Sequence[Ints]) -> Array:
    """Those baselines of one tensor, (B, ...)."""
    parts = [slot.job.baselines[tensor][own] for slot, own in zip(pack.slots, used, strict=True)]
    values = np.concatenate(parts)
    return np.concatenate([values, np.repeat(values[-1:], padded(len(values)) - len(values), axis=0)])


def target_feeds(program: Program, pack: Pack) -> dict[str, Array]:
    """Positions and weights of every request, padded to one length with weight 0."""
    targets = [slot.job.target for slot in pack.slots]
    width = padded(max(len(t.index) for t in targets))
    index = np.zeros((len(targets), width), np.int64)
    weight = np.zeros((len(targets), width), program.output.wide.numpy())
    for q, target in enumerate(targets):
        index[q, : len(target.index)] = target.index
        weight[q, : len(target.index)] = target.weight
    return {"target/index": pack.per_request(list(index)), "target/weight": pack.per_request(list(weight))}


def plan_feeds(program: Program, pack: Pack) -> dict[str, Array]:
    """The tables of the moments part; see :class:`onnxplain.engine.moments.Plan` for each."""
    wide = accumulator(program.path)
    segments = _segments(pack)
    n_requests, n_segments, n_rows = pack.n_requests, padded(len(segments)), pack.size
    offsets = pack.offsets

    def column(n: int, on: Sequence[int]) -> Array:
        flags = np.zeros((n, 1), bool)
        flags[list(on)] = True
        return flags

    def numbers(n: int, values: dict[int, int]) -> Array:
        table = np.zeros(n, np.int64)
        table[list(values)] = list(values.values())
        return table

    weights, counts = np.zeros((n_segments, n_rows), wide), np.zeros((n_requests, n_segments), wide)
    for s, segment in enumerate(segments):
        rows = pack.slots[segment.slot].job.round.rows
        weights[s, segment.begin : segment.end] = rows.weight[segment.row : segment.row + segment.end - segment.begin]
        counts[segment.slot, s] = segment.closes
    checks = np.zeros((n_requests, n_rows), wide)
    last_of = {segment.slot: s for s, segment in enumerate(segments)}
    firsts = {x.slot: s for s, x in enumerate(segments) if x.closes and x.is_first_sample}
    previous, has_previous = np.zeros(n_rows, np.int64), np.zeros(n_rows, bool)
    from_before, multiply = np.zeros((n_rows, 1), bool), np.zeros((n_rows, 1), bool)
    for q, slot in enumerate(pack.slots):
        part = slice(offsets[q], offsets[q + 1])
        rows = slot.job.round.rows
        checks[q, part] = rows.check[slot.start : slot.stop]
        multiply[part] = rows.multiply
        previous[part] = np.maximum(np.arange(part.start, part.stop) - 1, 0)
        has_previous[part] = _follows(rows.sample, slot.start, slot.stop)
        from_before[part.start] = has_previous[part.start]
    old = {q: slot.before for q, slot in enumerate(pack.slots) if slot.before is not None}
    feeds: dict[str, Array] = {
        "weights": weights,
        "checks": checks,
        "counts": counts,
        "segment_slot": numbers(n_segments, {s: x.slot for s, x in enumerate(segments)}),
        "continues": column(n_segments, [s for s, x in enumerate(segments) if x.continues]),
        "closes": column(n_segments, [s for s, x in enumerate(segments) if x.closes]),
        "open_segment": numbers(n_requests, last_of),
        "leaves_open": column(n_requests, [q for q, s in last_of.items() if not segments[s].closes]),
        "first_segment": numbers(n_requests, firsts),
        "sets_first": column(n_requests, list(firsts)),
        "last_row": numbers(n_requests, {q: offsets[q + 1] - 1 for q in range(len(pack.slots))}),
        "previous": previous,
        "has_previous": has_previous,
        "from_before": from_before,
        "slot": numbers(n_requests, old),
        "carried": column(n_requests, list(old)),
        "finished": np.array([q for q, slot in enumerate(pack.slots) if slot.is_last], np.int64),
        "multiply": multiply,
    }
    return {f"plan/{name}": table for name, table in feeds.items()}


@dataclass(frozen=True)
class _Segment:
    """Rows ``begin`` to ``end`` of the run, of one sample of one slot; ``row``: the first one's number in its job."""

    slot: int
    begin: int
    end: int
    row: int
    continues: bool
    closes: bool
    is_first_sample: bool


def _segments(pack: Pack) -> list[_Segment]:
    found = []
    for q, (slot, offset) in enumerate(zip(pack.slots, pack.offsets, strict=False)):
        sample = slot.job.round.rows.sample
        breaks = np.flatnonzero(~_follows(sample, slot.start, slot.stop)) + slot.start
        edges = sorted({slot.start, *breaks.tolist(), slot.stop})
        for begin, end in itertools.pairwise(edges):
            found.append(
                _Segment(
                    slot=q,
                    begin=offset + begin - slot.start,
                    end=offset + end - slot.start,
                    row=begin,
                    continues=begin > 0 and bool(sample[begin - 1] == sample[begin]),
                    closes=end == len(sample) or bool(sample[end] != sample[end - 1]),
                    is_first_sample=bool(sample[begin] == sample[0]),
                )
            )
    return found


def _follows(sample: Ints, start: int, stop: int) -> Array:
    """Per row: is the row before it of the same sample?"""
    before = sample[start - 1 : stop - 1] if start > 0 else np.concatenate([sample[:1] - 1, sample[: stop - 1]])
    return np.asarray(sample[start:stop] == before)


def empty_state(program: Program) -> dict[str, Array]:
    """State for a run in which no request has one."""
    zero = np.zeros((1, 1), accumulator(program.path))
    return {f"state/{part}/{tensor.name}": zero for tensor in program.path for part in STATE}
