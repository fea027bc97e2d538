"""Many jobs at once, cancellation, failing runs, closing: no future is left without an answer."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import pytest

from onnxplain.engine import Engine, Scheduler
from onnxplain.errors import BadRequest, Cancelled, NotFound, OnnxplainError, Unavailable
from onnxplain.rows import Job, Outcome, Purpose, Rows, Target
from tests.engine.artifacts import Tanh, job, line, row
from tests.engine.gated import Gate
from tests.engine.test_engine import TOLERANCE, assert_is

NET = Tanh.drawn("float32")
RNG = np.random.default_rng(11)


def gradient() -> Job:
    return job(row(RNG), Rows.table([1.0]))


def test_many_jobs_from_many_threads_are_what_they_are_alone() -> None:
    kinds = [Rows.table([1.0]), line(17), Rows.table([1.0]).repeated(9, 0.2), line(5).repeated(3, 0.1)]
    jobs = [job(row(RNG), kinds[i % 4], target=i % 4, seed=i) for i in range(48)]
    futures: dict[int, Future[Outcome]] = {}

    with Engine(NET.artifact(), "cpu") as engine:

        def ask(start: int) -> None:
            for i in range(start, 48, 6):
                futures[i] = engine.submit(jobs[i])

        threads = [threading.Thread(target=ask, args=(start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, future in futures.items():
            assert_is(future.result(60), jobs[i], NET, TOLERANCE["float32"])


def test_jobs_that_wait_together_run_together() -> None:
    gate = Gate()
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=8) as engine:
        gate.hold()
        first = engine.submit(gradient())
        gate.wait_for_a_run()
        rest = [engine.submit(gradient()) for _ in range(11)]
        gate.open.set()
        wait([first, *rest], 60)
    assert gate.sizes == [1, 8, 3]
    assert gate.requests == [1, 8, 3]


def test_a_small_job_overtakes_a_huge_one() -> None:
    gate, order = Gate(), []
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=4) as engine:
        gate.hold()
        huge = engine.submit(job(row(RNG), line(400)))
        gate.wait_for_a_run()
        small = engine.submit(gradient())
        for name, future in (("huge", huge), ("small", small)):
            future.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        gate.open.set()
        wait([huge, small], 60)
    assert order == ["small", "huge"]
    assert gate.sizes[0] == gate.sizes[1] == 4
    assert len(gate.sizes) == 101  # 400 + 1 rows, four at a time


def test_purposes_take_turns() -> None:
    gate = Gate()
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=4) as engine:
        gate.hold()
        huge = engine.submit(job(row(RNG), line(400)))
        gate.wait_for_a_run()
        forward = engine.submit(job(row(RNG), Rows.table([1.0]), purpose=Purpose("y")))
        runs = []
        forward.add_done_callback(lambda _: runs.append(len(gate.sizes)))
        gate.open.set()
        wait([forward, huge], 60)
    assert runs == [2]
    assert gate.sessions == 2


def test_a_cancelled_job_stops_between_runs() -> None:
    gate, gone = Gate(), threading.Event()
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=2) as engine:
        gate.hold()
        doomed = engine.submit(job(row(RNG), line(10**5)), gone.is_set)
        gate.wait_for_a_run()
        kept_job = job(row(RNG), line(6))
        kept = engine.submit(kept_job)
        gone.set()
        gate.open.set()
        with pytest.raises(Cancelled, match="went away"):
            doomed.result(60)
        assert_is(kept.result(60), kept_job, NET, TOLERANCE["float32"])
    assert len(gate.sizes) < 20


def test_a_run_is_stopped_when_nobody_waits_for_it() -> None:
    gate, gone = Gate(), threading.Event()
    with Engine(NET.artifact(), "cpu", open_session=gate) as engine:
        gate.hold()
        doomed = engine.submit(job(row(RNG), line(8)), gone.is_set)
        gate.wait_for_a_run()
        gone.set()
        with pytest.raises(Cancelled):
            doomed.result(60)  # though the gate was never opened
        gate.open.set()
        engine.submit(gradient()).result(60)
    assert gate.stopped >= 1


def test_a_run_goes_on_while_one_of_its_jobs_is_wanted() -> None:
    gate, gone = Gate(), threading.Event()
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=8) as engine:
        gate.hold()
        first = engine.submit(gradient())
        gate.wait_for_a_run()
        doomed = engine.submit(job(row(RNG), Rows.table([1.0])), gone.is_set)
        wanted = engine.submit(gradient())
        gate.open.set()
        first.result(60)
        gone.set()
        wanted.result(60)
        assert doomed.exception(60) is None or isinstance(doomed.exception(60), Cancelled)
    assert gate.stopped == 0


def test_a_future_cancelled_while_it_waits_never_runs() -> None:
    gate = Gate()
    with Engine(NET.artifact(), "cpu", open_session=gate) as engine:
        gate.hold()
        first = engine.submit(gradient())
        gate.wait_for_a_run()
        second, third = engine.submit(gradient()), engine.submit(gradient())
        assert second.cancel()
        gate.open.set()
        wait([first, third], 60)
    assert gate.requests == [1, 1]


@pytest.mark.parametrize("trouble", [OnnxplainError("the device fell off"), ZeroDivisionError("what is this")])
def test_a_failing_run_fails_its_own_jobs_only(trouble: Exception) -> None:
    def fail(feeds: Any) -> None:
        if 3 in feeds["target/index"]:
            raise trouble

    gate = Gate(fail)
    with Engine(NET.artifact(), "cpu", open_session=gate, max_rows=1) as engine:
        gate.hold()
        before = job(row(RNG), line(4))
        jobs = [before, job(row(RNG), line(4), target=3), job(row(RNG), line(4), target=2)]
        futures = [engine.submit(one) for one in jobs]
        gate.wait_for_a_run()
        gate.open.set()
        with pytest.raises(OnnxplainError, match=str(trouble)):
            futures[1].result(60)
        assert_is(futures[0].result(60), before, NET, TOLERANCE["float32"])
        assert_is(futures[2].result(60), jobs[2], NET, TOLERANCE["float32"])
        assert_is(engine.submit(before).result(60), before, NET, TOLERANCE["float32"])


def test_an_error_of_onnxruntime_names_the_program() -> None:
    """A model that ONNX Runtime cannot run: in float64 it has no convolution, here an operator of no domain."""
    broken = NET.artifact()
    node = next(n for n in broken.model.graph if n.op_type == "Tanh")
    node.op_type = "Tanhh"
    with Engine(broken, "cpu") as engine, pytest.raises(OnnxplainError, match=r"gradient of y along x.*Tanhh"):
        engine.submit(gradient()).result(60)


def test_a_caller_whose_question_fails_is_told() -> None:
    def ask() -> bool:
        raise RuntimeError("no connection")

    with Engine(NET.artifact(), "cpu") as engine:
        with pytest.raises(OnnxplainError, match="no connection"):
            engine.submit(gradient(), ask).result(60)
        engine.submit(gradient()).result(60)


def test_a_caller_may_submit_from_a_callback() -> None:
    second: Future[Outcome] = Future()
    with Engine(NET.artifact(), "cpu") as engine:

        def again(_: Future[Outcome]) -> None:
            engine.submit(gradient()).add_done_callback(lambda done: second.set_result(done.result()))

        engine.submit(gradient()).add_done_callback(again)
        assert second.result(60).n_rows == 1


def test_closing_fails_what_is_left() -> None:
    gate = Gate()
    engine = Engine(NET.artifact(), "cpu", open_session=gate)
    gate.hold()
    futures = [engine.submit(job(row(RNG), line(1000))) for _ in range(20)]
    gate.wait_for_a_run()
    threading.Timer(0.05, gate.open.set).start()
    engine.close()
    assert all(isinstance(future.exception(0), Unavailable) for future in futures)
    assert isinstance(engine.submit(gradient()).exception(0), Unavailable)
    engine.close()


def test_draining_finishes_what_is_left() -> None:
    scheduler = Scheduler(max_wait=60.0)
    engine = Engine(NET.artifact(), "cpu", scheduler=scheduler)
    asked = [job(row(RNG), line(5)) for _ in range(3)]
    futures = [engine.submit(one) for one in asked]
    scheduler.close(drain=True)
    for one, future in zip(asked, futures, strict=True):
        assert_is(future.result(0), one, NET, TOLERANCE["float32"])


def test_engines_share_a_scheduler_and_leave_it_alone() -> None:
    """Two models on one device; closing one fails its jobs and gives its sessions back, the other goes on."""
    scheduler, gate = Scheduler(), Gate()
    other_net = Tanh.drawn("float32", seed=1)
    one = Engine(NET.artifact(), "cpu", scheduler=scheduler, open_session=gate)
    other = Engine(other_net.artifact(), "cpu", scheduler=scheduler)
    asked = job(row(RNG), line(5))
    gate.hold()
    left = one.submit(asked)
    gate.wait_for_a_run()
    kept = other.submit(asked)
    one.close()
    gate.open.set()
    assert isinstance(left.exception(60), Unavailable)
    assert_is(kept.result(60), asked, other_net, TOLERANCE["float32"])
    assert isinstance(one.submit(asked).exception(60), Unavailable)
    assert_is(other.submit(asked).result(60), asked, other_net, TOLERANCE["float32"])
    scheduler.close()


def test_sessions_beyond_the_budget_are_dropped_and_made_again() -> None:
    scheduler, gate = Scheduler(cache_bytes=1), Gate()
    with Engine(NET.artifact(), "cpu", scheduler=scheduler, open_session=gate) as engine:
        forward = job(row(RNG), Rows.table([1.0]), purpose=Purpose("y"))
        asked = job(row(RNG), line(5))
        for one in (asked, asked, forward, asked):
            assert_is(engine.submit(one).result(60), one, NET, TOLERANCE["float32"])
    assert gate.sessions == 3
    scheduler.close()


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"target": 4}, BadRequest, "position 4 is out of range: the output has positions 0 to 3"),
        ({"target": -2}, BadRequest, "position -2"),
        ({"target": Target((1, 2))}, BadRequest, "a weight per position"),
        ({"x": np.zeros((2, 3, 4), np.float32)}, BadRequest, r"x must be float32 \(2, 3, 3\) for one row, got .*3, 4"),
        ({"x": np.zeros((2, 3, 3))}, BadRequest, "x must be float32"),
        ({"baselines": np.zeros((2, 3, 3), np.float32)}, BadRequest, "baseline of x"),
        ({"purpose": Purpose("z", "gradient", ("x",))}, NotFound, "no explained output 'z'.*y"),
        ({"purpose": Purpose("y", "guided", ("x",))}, NotFound, "no rule set 'guided'.*gradient"),
        ({"purpose": Purpose("y", "gradient", ("x",), taps=("hh1",))}, NotFound, "no tensor 'hh1'.*nearest: hh"),
        ({"purpose": Purpose("y", "gradient", ("z",))}, NotFound, "no gradient of 'z'"),
        ({"rows": Rows.table([])}, BadRequest, "at least one row"),
        ({"rows": Rows.table([np.nan])}, BadRequest, "alpha of every row must be finite"),
        ({"rows": Rows.table([1.0], [1e30])}, BadRequest, "weight of every row"),
    ],
)
def test_a_wrong_job_is_told_so_and_hurts_no_other(wrong: dict[str, Any], error: type[Exception], says: str) -> None:
    right = job(row(RNG), line(5))
    with Engine(NET.artifact(), "cpu") as engine:
        futures = [engine.submit(one) for one in (right, job(**{"x": row(RNG), "rows": line(3), **wrong}), right)]
        with pytest.raises(error, match=says):
            futures[1].result(60)
        for future in (futures[0], futures[2]):
            assert_is(future.result(60), right, NET, TOLERANCE["float32"])
