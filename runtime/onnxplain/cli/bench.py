"""``onnxplain bench``: what explanations of one's own model cost on this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from onnxplain.artifact import TensorSpec
from onnxplain.cli import console
from onnxplain.cli.group import Command
from onnxplain.cli.method_options import method_options, named, taken, those_of
from onnxplain.cli.pictures import Flags, picture_flags
from onnxplain.cli.reading import read_input
from onnxplain.errors import BadRequest, OnnxplainError

LEAST_CALLS = 2
"""However long they take."""

Feeds = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Measured:
    """Latencies of single calls in seconds, one per call, and calls per second with several at work."""

    seconds: NDArray[np.float64]
    per_second: float
    n_rows: int

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.seconds, q))


@click.command(
    cls=Command,
    short_help="Latency, throughput and cost of explaining a model.",
    examples=(
        ("onnxplain bench net.onnx", "gradient, integrated gradients, SmoothGrad and Grad-CAM on random input"),
        ("onnxplain bench net.onnx cat.jpg -m integrated_gradients --n-steps 200 --calls 50", ""),
        ("onnxplain bench net.onnx --provider cuda --concurrent 8", ""),
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source", metavar="[INPUT]", type=click.Path(path_type=Path), required=False)
@click.option(
    "-m", "--method", "methods", multiple=True, help="Method to measure (repeatable).",
    default=("gradient", "integrated_gradients", "smoothgrad", "grad_cam"),
)  # fmt: skip
@click.option(
    "--calls", default=20, type=click.IntRange(min=LEAST_CALLS), help="Calls per method, after one uncounted."
)
@click.option(
    "--seconds", default=20.0, type=click.FloatRange(min=0), help="Begin no more calls of a method after this."
)
@click.option("--concurrent", default=4, type=click.IntRange(min=1), help="Callers at once, for the throughput.")
@click.option(
    "--provider", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), help="Device that runs the model."
)
@click.option(
    "--size-of", "sizes", multiple=True, metavar="AXIS=N", help="Length of a named axis of the input (repeatable)."
)
@picture_flags
@method_options
def bench(
    model: Path,
    source: Path | None,
    methods: tuple[str, ...],
    calls: int,
    seconds: float,
    concurrent: int,
    provider: str,
    sizes: tuple[str, ...],
    **options: Any,
) -> None:
    """Measure what explaining one input costs: latency, throughput, and how many forward passes it is worth.

    Everything runs in this process. "forwards" is the median latency in units of one forward pass of the same model
    on the same input: a gradient cannot be below 2, and 50 steps of integrated gradients cost 100 where batching gains
    nothing.
    """
    import onnxplain

    chosen = [named(name) for name in methods]
    flags, asked = Flags.take(options), taken(options)
    with console.working(f"loading {model}"):
        loaded = onnxplain.load(model, provider=provider)
    with loaded, console.bar("measuring", "methods") as progress:
        if source is None:
            feeds = random_feeds(loaded.manifest.inputs, _sizes(sizes))
        else:
            given, warnings = read_input(source, loaded.manifest, flags)
            feeds = given.arrays
            for text in warnings:
                console.warn(text)
        task = progress.add_task("", total=len(chosen) + 1)
        measured = partial(_measure, calls=calls, budget=seconds, concurrent=concurrent)
        forward = measured(partial(loaded.predict, feeds))
        rows = [_row("forward", forward, forward)]
        failed = []
        for method in chosen:
            progress.advance(task)
            try:
                explain = partial(loaded.explain, feeds, method.name, **those_of(method, asked))
                rows.append(_row(method.name, measured(explain), forward))
            except OnnxplainError as refused:  # a model without spatial layers has no Grad-CAM: measure the others
                failed.append((method.name, refused))
        manifest = loaded.manifest
    to = console.out()
    shapes = ", ".join(f"{name} {list(value.shape)} {value.dtype}" for name, value in feeds.items())
    to.print(f"{model}: {shapes}, on {loaded.provider}, {manifest.rows} rows", soft_wrap=True)
    columns = ("method", "calls", "evaluations", "p50 ms", "p90 ms", "p99 ms", "forwards", "per second")
    to.print(console.table(columns, rows, right=columns[1:]))
    to.print(f"per second: with {concurrent} callers at once; {_machine()}", soft_wrap=True)
    for name, error in failed:
        console.warn(f"{name} not measured: {error}")
    if len(failed) == len(chosen):
        raise failed[0][1]


def _measure(call: Callable[[], Any], *, calls: int, budget: float, concurrent: int) -> Measured:
    first = call()  # makes the program and fills the caches
    seconds: list[float] = []
    end = time.perf_counter() + budget
    while len(seconds) < LEAST_CALLS or (len(seconds) < calls and time.perf_counter() < end):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    with ThreadPoolExecutor(concurrent) as pool:
        for future in [pool.submit(call) for _ in seconds]:
            future.result()
    took = time.perf_counter() - start
    return Measured(np.asarray(seconds), len(seconds) / took, int(getattr(first, "n_rows", 1)))


def _row(name: str, measured: Measured, forward: Measured) -> tuple[object, ...]:
    milliseconds = [f"{measured.percentile(q) * 1e3:.2f}" for q in (50, 90, 99)]
    ratio = measured.percentile(50) / forward.percentile(50)
    return (name, len(measured.seconds), measured.n_rows, *milliseconds, f"{ratio:.1f}", f"{measured.per_second:.1f}")


def random_feeds(inputs: Sequence[TensorSpec], sizes: dict[str, int]) -> Feeds:
    """One row of standard normal values per input, of ones for integers: a valid token, mask and position everywhere.

    Raises BadRequest where the length of an axis other than the first is neither in the model nor in ``sizes``.
    """
    draw = np.random.default_rng(0)
    feeds: Feeds = {}
    for spec in inputs:
        shape = []
        for place, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim in sizes:
                dim = sizes[dim]
            if not isinstance(dim, int):
                if place:
                    raise BadRequest(
                        f"input {spec.name} {list(spec.shape)}: the length of axis {place} is not in the model: say"
                        f" --size-of {dim or 'AXIS'}=N, or give an INPUT"
                    )
                dim = 1
            shape.append(dim)
        floats = spec.dtype.startswith("float")
        feeds[spec.name] = (draw.standard_normal(shape) if floats else np.ones(shape)).astype(spec.dtype)
    return feeds


def _sizes(given: tuple[str, ...]) -> dict[str, int]:
    made = {}
    for text in given:
        axis, _, length = text.rpartition("=")
        if not axis or not length.isdecimal() or int(length) < 1:
            raise BadRequest(f"--size-of {text}: AXIS=N, for example sequence=128")
        made[axis] = int(length)
    return made


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
