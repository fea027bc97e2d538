"""How long does one explanation take? ``python -m benchmarks.latency`` (``--quick``: small networks, few repeats).

ResNet-50 and ViT-B/16 with random weights, one picture of 224 x 224, in process and through the server, against Captum
on PyTorch with the same weights and its fastest internal batch size, turn by turn in one run. Two ratios: Captum's time
over ours (above 1: we are faster), and ours over the floor, which is two forward passes of the same engine per row (at
or below 1: nothing is lost). The agreement column is the relative L2 distance of the two maps: both are float32, whose
rounding moves gates of a random ReLU network, so that on ResNet-50 either is about 2e-2 from its own float64 gradient.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

import onnxplain
import onnxplain_convert
from benchmarks.measure import Ratio, machine, markdown, milliseconds, relative_difference, seconds, turns
from benchmarks.networks import NETWORKS, Network, photographs, ready
from benchmarks.peer import Floats, Peer
from benchmarks.server import serving
from benchmarks.tasks import TASKS

HEAD = (
    *("network", "method", "in process ms", "server ms", "Captum ms", "Captum / in process", "Captum / server"),
    *("in process / floor", "agreement"),
)
FORWARD_ROWS = 16
"""Rows of the forward pass that the floor of a method of 50 rows is made of."""


def measured(network: Network, folder: Path, repeats: int, provider: str = "cpu") -> Iterator[tuple[object, ...]]:
    """One row of the table per task."""
    path = folder / "net.explain.onnx"
    x = photographs(1, network.size, seed=3)
    artifact = onnxplain_convert.convert(network.module, path, rules=("gradient",), example=x)
    peer = Peer(network)
    layer = [layer.name for layer in artifact.manifest.layers if layer.op == network.operator][-1]
    with onnxplain.load(path, provider=provider) as model, serving(folder, provider) as client:
        target = int(np.argmax(model.predict(x)[artifact.manifest.default_output]))
        many = np.repeat(x, FORWARD_ROWS, axis=0)
        for task in TASKS:
            call = task.call(target, layer)
            explain: Callable[[Floats, int, int], Floats] = getattr(peer, task.method)
            batch = peer.fastest_batch(explain, seconds) if task.n_rows > 1 else 1
            contestants: dict[str, Callable[[], object]] = {
                "ours": partial(model.explain, x, **call),
                "server": partial(client.model("net").explain, x, **call),
                "captum": partial(explain, x, target, batch),
                "forward": partial(model.predict, x if task.n_rows == 1 else many),
            }
            times = turns(contestants, repeats)
            floor = 2 * times["forward"] * (1 if task.n_rows == 1 else task.n_rows / FORWARD_ROWS)
            (ours,) = model.explain(x, **call).attributions.values()
            agreement = relative_difference(ours, explain(x, target, batch)) if task.same_numbers else None
            yield (
                network.name,
                task.label,
                milliseconds(times["ours"]),
                milliseconds(times["server"]),
                milliseconds(times["captum"]) + (f" (batch {batch})" if task.n_rows > 1 else ""),
                Ratio.of(times["captum"], times["ours"]),
                Ratio.of(times["captum"], times["server"]),
                Ratio.of(times["ours"], floor),
                "other noise" if agreement is None else f"{agreement:.1e}",
            )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small networks of the same kinds, few repeats")
    parser.add_argument("--repeats", type=int, help="turns per method")
    parser.add_argument("--network", choices=tuple(NETWORKS), action="append", help="only this one (repeatable)")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    rows = []
    for name in arguments.network or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            for row in measured(ready(name, small=arguments.quick), Path(folder), repeats):
                print(*row, sep="  ", flush=True)
                rows.append(row)
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"\n{markdown(HEAD, rows)}\n\n{machine()}; {repeats} turns, {load}; ratios: median (quartiles)")


if __name__ == "__main__":
    main()
