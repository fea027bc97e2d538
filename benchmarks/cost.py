"""What does differentiating cost before anything is explained? ``python -m benchmarks.cost``: nodes, bytes, seconds.

ResNet-50 and ViT-B/16 as ONNX, converted under the default rule sets and under the gradient alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx

import onnxplain_convert
from benchmarks import onnx_networks
from benchmarks.measure import machine, markdown

HEAD = ("network", "rule sets", "nodes before", "nodes after", "MB before", "MB after", "convert s")

NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {"resnet-50": onnx_networks.resnet, "vit-b16": onnx_networks.vit}
RULES = (("gradient",), ("gradient", "guided", "deconvnet"))


def measured(name: str, model: onnx.ModelProto, rules: tuple[str, ...], folder: Path) -> tuple[object, ...]:
    """One row of the table."""
    source, artifact = folder / "net.onnx", folder / "net.explain.onnx"
    onnx.save(model, source)
    start = time.perf_counter()
    made = onnxplain_convert.convert(source, artifact, rules=rules)
    took = time.perf_counter() - start
    sizes = [f"{path.stat().st_size / 1e6:.1f}" for path in (source, artifact)]
    return (name, " ".join(rules), len(model.graph.node), len(made.model.graph), *sizes, f"{took:.1f}")


def main() -> None:
    """Convert and print the table."""
    rows = []
    for name, build in NETWORKS.items():
        model = build()
        for rules in RULES:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(name, model, rules, Path(folder)))
    print(f"{markdown(HEAD, rows)}\n\n{machine(('onnxplain', 'onnx', 'onnx-ir', 'onnxscript'))}")


if __name__ == "__main__":
    main()
