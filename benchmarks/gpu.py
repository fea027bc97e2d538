"""Accepts the CUDA provider on this machine: ``python -m benchmarks.gpu``, on any NVIDIA GPU, in under ten minutes.

Needs ``pip install ".[gpu]"`` and nothing else; with PyTorch, transformers and Captum there, latency is compared with
Captum on the same GPU. Checks that sessions really are on CUDA, that no node but shape arithmetic is on the CPU, and
that CPU and CUDA give the same maps under every rule set to 1e-4 with TF32 off. Measures latency with TF32 off and on,
peak memory, and what is copied between host and device per explanation. Exit status 0 where all checks hold, 1 where
one does not, 2 where there is no usable GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxplain_convert
from benchmarks import onnx_networks
from benchmarks.device import Copies, model_on, peak_memory, smi
from benchmarks.measure import Ratio, machine, markdown, milliseconds, relative_difference, seconds, turns
from benchmarks.placement import partitioned, programs, reported
from benchmarks.tasks import TASKS, Task
from onnxplain.artifact import Artifact
from onnxplain.engine.session import resolve_provider
from onnxplain.errors import OnnxplainError

TOLERANCE = 1e-4
TARGET = 7
METHOD_OF = {"gradient": "gradient", "guided": "guided_backprop", "deconvnet": "deconvnet"}
PEERS = ("torch", "transformers", "captum")
LARGEST_BATCH = 50
"""Rows of the forward pass that the floor is made of."""

HEAD = (
    "network",
    "method",
    "ms",
    "ms TF32",
    "Captum / ours",
    "the same, TF32",
    "ours / floor",
    "copied per explanation",
)


@dataclass(frozen=True)
class Subject:
    """A network to run: its artifact, a picture's side, the operator of the layer that Grad-CAM explains, Captum."""

    name: str
    artifact: Artifact
    size: int
    operator: str
    peer: Any = None

    @property
    def layer(self) -> str:
        """The last layer of that operator."""
        return [layer.name for layer in self.artifact.manifest.layers if layer.op == self.operator][-1]


def subjects() -> Iterator[Subject]:
    """A CNN and a transformer: PyTorch's where it is there and sees the GPU, else the same shapes as plain ONNX."""
    if all(importlib.util.find_spec(name) for name in PEERS):
        import torch

        from benchmarks.networks import NETWORKS, photographs, ready
        from benchmarks.peer import Peer

        if torch.cuda.is_available():
            for name in NETWORKS:
                network = ready(name)
                artifact = onnxplain_convert.convert(network.module, example=photographs(1, network.size))
                network.module.to("cuda")
                yield Subject(network.name, artifact, network.size, network.operator, Peer(network, "cuda"))
            return
    yield Subject("resnet-50", onnxplain_convert.convert(onnx_networks.resnet()), 224, "Relu")
    yield Subject("vit-b16", onnxplain_convert.convert(onnx_networks.vit()), 224, "Conv")


def agreement(subject: Subject, x: NDArray[np.float32]) -> Iterator[tuple[object, ...]]:
    """CUDA against the CPU under every rule set: for one row, for rows that fill no bucket, for noise."""
    noisy = {"method": "smoothgrad", "n_samples": 8, "seed": 5}
    with model_on(subject.artifact, "cpu") as cpu, model_on(subject.artifact, "cuda") as cuda:
        for rules in subject.artifact.manifest.rules:
            method = METHOD_OF[rules]
            asks: tuple[tuple[str, int, dict[str, Any]], ...] = (
                ("1 row", 1, {"method": method}),
                (f"{len(x)} rows", len(x), {"method": method}),
                ("8 noisy samples", 1, {**noisy, "base": method}),
            )
            for label, n, call in asks:
                ours, truth = (model.explain(x[:n], target=TARGET, **call) for model in (cuda, cpu))
                worst = max(
                    relative_difference(ours.attributions[key], map_) for key, map_ in truth.attributions.items()
                )
                good = worst < TOLERANCE and (ours.provider, truth.provider) == ("cuda", "cpu")
                verdict = "ok" if good else f"FAILED: above {TOLERANCE}, or {ours.provider} against {truth.provider}"
                yield subject.name, rules, label, f"{worst:.1e}", verdict


def latency(subject: Subject, task: Task, x: NDArray[np.float32], repeats: int) -> tuple[object, ...]:
    """One row of the latency table: TF32 off and on, against the floor, and against Captum where it is there."""
    copies, call = Copies(), task.call(TARGET, subject.layer)
    many = np.repeat(x, min(task.n_rows, LARGEST_BATCH), axis=0)
    with (
        model_on(subject.artifact, "cuda", copies=copies) as exact,
        model_on(subject.artifact, "cuda", tf32=True) as fast,
    ):
        exact.explain(x, **call)
        copies.clear()
        exact.explain(x, **call)
        crossed = str(copies)
        contestants: dict[str, Callable[[], object]] = {
            "exact": partial(exact.explain, x, **call),
            "fast": partial(fast.explain, x, **call),
            "forward": partial(exact.predict, many),
        }
        if subject.peer:
            explain = getattr(subject.peer, task.method)
            batch = subject.peer.fastest_batch(explain, seconds) if task.n_rows > 1 else 1
            for name, tf32 in (("captum exact", False), ("captum fast", True)):
                contestants[name] = partial(with_tf32, tf32, partial(explain, x, TARGET, batch))
        times = turns(contestants, repeats)
    peers = ("no PyTorch", "no PyTorch")
    if subject.peer:
        peers = (
            str(Ratio.of(times["captum exact"], times["exact"])),
            str(Ratio.of(times["captum fast"], times["fast"])),
        )
    floor = Ratio.of(times["exact"], 2 * times["forward"] * task.n_rows / len(many))
    return subject.name, task.label, milliseconds(times["exact"]), milliseconds(times["fast"]), *peers, floor, crossed


def with_tf32(on: bool, call: Callable[[], object]) -> object:
    """Captum with PyTorch's TF32 switched as ours is."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    return call()


def accepted(subject: Subject, x: NDArray[np.float32]) -> bool:
    """Placement and agreement of one network, printed."""
    astray = reported(partitioned(Path(sys.executable), dict(programs(subject.name, subject.artifact))))
    rows = list(agreement(subject, x))
    print(f"\n{markdown(('network', 'rule set', 'what', 'CUDA to CPU', ''), rows)}\n", flush=True)
    return not astray and all(row[-1] == "ok" for row in rows)


def main() -> int:
    """Check, measure, print; the exit status says whether CUDA is accepted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=9, help="turns per method")
    repeats = parser.parse_args().repeats
    try:
        gpu = smi("name,driver_version,memory.total")
        resolve_provider("cuda")
    except (OSError, subprocess.SubprocessError) as error:
        print(f"no NVIDIA GPU here that nvidia-smi can see ({error}): nothing was measured", file=sys.stderr)
        return 2
    except OnnxplainError as error:
        print(f"this GPU cannot be used: {error}", file=sys.stderr)
        return 2
    peers = [name for name in ("torch", "captum") if importlib.util.find_spec(name)]
    print(f"GPU 0: {gpu} MiB; {machine(('onnxplain', 'onnxruntime-gpu', *peers))}\n", flush=True)
    good, rows = True, []
    for subject in subjects():
        x = np.random.default_rng(0).normal(size=(3, 3, subject.size, subject.size)).astype(np.float32)
        good &= accepted(subject, x)
        with peak_memory() as peak, model_on(subject.artifact, "cuda") as model:
            for task in TASKS:
                model.explain(x[:1], **task.call(TARGET, subject.layer))
        print(f"{subject.name}: peak memory {peak[0]:.0f} MiB for the {len(TASKS)} methods\n", flush=True)
        rows += [latency(subject, task, x[:1], repeats) for task in TASKS]
    print(f"{markdown(HEAD, rows)}\n\n{repeats} turns; ratios: median (quartiles)")
    print("CUDA accepted" if good else "CUDA NOT accepted: see what FAILED or is in the wrong place above")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
