"""Threads, purposes, wrong jobs, jobs given up, sessions dropped, all at once. Nothing hangs, nothing is wrong."""

from __future__ import annotations

import random
import threading
from concurrent.futures import CancelledError, Future

import numpy as np
import pytest

from onnxplain.engine import Engine, Scheduler
from onnxplain.errors import BadRequest, Cancelled
from onnxplain.rows import TOP, Job, Outcome, Purpose, Rows, Target
from tests.engine.artifacts import GRADIENT, Tanh, job, line, row
from tests.engine.test_engine import TOLERANCE, assert_is

NETS = [Tanh.drawn("float32", seed) for seed in (0, 1)]
ROWS = [
    lambda: Rows.table([1.0]),
    lambda: line(13),
    lambda: Rows.table([1.0]).repeated(9, 0.2),
    lambda: line(5).repeated(3, 0.1),
]
Asked = tuple[Future[Outcome], Job, Tanh]


def ask(engines: list[Engine], seed: int, asked: list[Asked]) -> None:
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    for i in range(25):
        which = chance.randrange(2)
        purpose = chance.choice([GRADIENT, GRADIENT, Purpose("y")])
        target = chance.choice([*(Target((k,)) for k in (0, 1, 2, 3, 9)), TOP])  # there are four classes
        one = job(row(rng), chance.choice(ROWS)(), target=target, seed=i, purpose=purpose)
        gone = threading.Event()
        future = engines[which].submit(one, gone.is_set)
        match chance.randrange(8):
            case 0:
                gone.set()
            case 1:
                future.cancel()
            case 2:
                threading.Timer(chance.random() * 0.05, gone.set).start()
        asked.append((future, one, NETS[which]))


@pytest.mark.parametrize("cache_bytes", [1, 2**30])
def test_storm(cache_bytes: int) -> None:
    scheduler = Scheduler(cache_bytes=cache_bytes)
    engines = [
        Engine(net.artifact(), "cpu", scheduler=scheduler, max_rows=n) for net, n in zip(NETS, (3, 8), strict=True)
    ]
    asked: list[Asked] = []
    threads = [threading.Thread(target=ask, args=(engines, seed, asked)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scheduler.close(drain=True)
    answered = 0
    for future, one, net in asked:
        assert future.done()
        try:
            outcome = future.result(0)
        except BadRequest:
            assert one.target.index == (9,)
        except (Cancelled, CancelledError):
            continue
        else:
            assert_is(outcome, one, net, TOLERANCE["float32"])
            answered += 1
    assert answered > 30
