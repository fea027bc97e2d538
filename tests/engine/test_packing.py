"""The packing policy with a fake clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxplain.engine.packing import Lane, Run, bucket, buckets, choose, fit, shares


def lane(
    key: str = "a",
    active: tuple[int, ...] = (),
    waiting: tuple[int, ...] = (),
    oldest: float = 0.0,
    served: float = -math.inf,
    max_rows: int = 8,
) -> Lane:
    return Lane(key, active, waiting, oldest if waiting else math.inf, served, buckets(max_rows))


def test_buckets_are_powers_of_two_and_the_largest() -> None:
    assert buckets(1) == (1,)
    assert buckets(8) == (1, 2, 4, 8)
    assert buckets(12) == (1, 2, 4, 8, 12)
    assert buckets(3, exact=True) == (1, 2, 3)


@pytest.mark.parametrize(
    ("pending", "expected"),
    [(1, (1, 1)), (2, (2, 2)), (3, (3, 4)), (5, (4, 4)), (6, (6, 8)), (8, (8, 8)), (9, (8, 8)), (10**6, (8, 8))],
)
def test_padding_is_at_most_a_quarter(pending: int, expected: tuple[int, int]) -> None:
    assert bucket(pending, buckets(8)) == expected


@given(st.lists(st.integers(1, 100), min_size=1, max_size=16), st.integers(1, 64))
def test_shares_are_fair_and_waste_nothing(pending: list[int], room: int) -> None:
    got = shares(pending, room)
    assert sum(got) == min(room, sum(pending))
    assert all(0 <= given <= wanted for given, wanted in zip(got, pending, strict=True))
    # Whoever got less than its wish has no less than anyone else, but for the last row or two.
    for given_, wanted in zip(got, pending, strict=True):
        if given_ < wanted:
            assert given_ >= max(got) - 1 or sum(got) == room


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=8), st.sampled_from([8, 12, 64]), st.booleans())
def test_every_active_job_advances_in_every_run(pending: list[int], max_rows: int, exact: bool) -> None:
    sizes = buckets(max_rows, exact)
    rows, size = fit(pending, sizes)
    assert all(n >= 1 for n in rows)
    assert sum(rows) <= size
    assert size in sizes


def test_a_huge_job_leaves_room_for_small_ones() -> None:
    assert fit([10**6, 1, 2], buckets(8)) == ([5, 1, 2], 8)
    assert fit([10**6, 10**6], buckets(8)) == ([4, 4], 8)


def test_idle_without_jobs() -> None:
    assert choose([], now=0.0) is None
    assert choose([lane()], now=0.0) is None


def test_jobs_wait_for_company_no_longer_than_allowed() -> None:
    waiting = [lane(waiting=(1, 2), oldest=10.0)]
    assert choose(waiting, now=10.0, max_wait=0.5) == 10.5
    assert choose(waiting, now=10.5, max_wait=0.5) == Run("a", 2)
    assert choose(waiting, now=10.0, max_wait=0.0) == Run("a", 2)


def test_a_full_run_does_not_wait() -> None:
    assert choose([lane(waiting=(5, 3), oldest=10.0)], now=10.0, max_wait=9.0) == Run("a", 2)


def test_jobs_that_run_do_not_wait_and_take_newcomers_along() -> None:
    assert choose([lane(active=(100,), waiting=(1,), oldest=10.0)], now=10.0, max_wait=9.0) == Run("a", 1)


def test_no_more_jobs_join_than_a_run_has_rows() -> None:
    assert choose([lane(active=(5,) * 6, waiting=(1,) * 10)], now=0.0) == Run("a", 2)
    assert choose([lane(active=(5,) * 8, waiting=(1,) * 10)], now=0.0) == Run("a", 0)


def test_lanes_take_turns() -> None:
    """A lane with a million rows and one with a single row: the single one runs second, not last."""
    big, small = lane("big", active=(10**6,), served=5.0), lane("small", waiting=(1,), oldest=5.5)
    assert choose([big, small], now=6.0) == Run("small", 1)
    busy = [lane("a", active=(9,), served=1.0), lane("b", active=(9,), served=2.0), lane("c", active=(9,), served=0.5)]
    order = []
    for now in range(3, 9):
        run = choose(busy, now=float(now))
        assert isinstance(run, Run)
        order.append(run.key)
        busy = [lane(str(x.key), x.active, served=float(now)) if x.key == run.key else x for x in busy]
    assert order == ["c", "a", "b", "c", "a", "b"]


def test_the_oldest_new_lane_first() -> None:
    young, old = lane("young", waiting=(1,), oldest=2.0), lane("old", waiting=(1,), oldest=1.0)
    assert choose([young, old], now=3.0) == Run("old", 1)
