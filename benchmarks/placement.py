"""Which provider runs which node of the gradient programs on CUDA? ``python -m benchmarks.placement``, without a GPU.

Makes a virtual environment with onnxruntime-gpu (of this environment's version), stand-ins for the CUDA libraries, and
the programs of a CNN and a transformer under every rule set; then lets the CUDA provider partition them. A node on the
CPU provider other than shape arithmetic is a copy to the host and back in every run: the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

import onnxplain_convert
from benchmarks import cuda_stubs
from benchmarks.networks import NETWORKS, photographs, ready
from onnxplain.engine.program import build
from onnxplain.rows import Purpose

PARTITION = """
import json, sys
import onnxruntime as ort

ort.set_default_logger_severity(4)
answer = []
for path in sys.argv[1:]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(path, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    parts = session.get_provider_graph_assignment_info()
    answer.append([(part.ep_name, node.op_type, node.name) for part in parts for node in part.get_nodes()])
print(json.dumps(answer))
"""


@dataclass(frozen=True)
class Placed:
    """Where one node of a program runs."""

    provider: str
    operator: str
    name: str


def programs(small: bool) -> Iterator[tuple[str, ir.Model]]:
    """The gradient program of every network under every rule set, with the type of every tensor."""
    for name in NETWORKS:
        network = ready(name, small=small)
        artifact = onnxplain_convert.convert(network.module, example=photographs(1, network.size))
        wrt = tuple(spec.name for spec in artifact.manifest.differentiated)
        for rules in artifact.manifest.rules:
            model = build(artifact, Purpose(artifact.manifest.default_output, rules, wrt)).model
            yield f"{network.name}.{rules}", ShapeInferencePass()(model).model


def gpu_python(folder: Path) -> Path:
    """The interpreter of a new environment with onnxruntime-gpu alone: it must not share one with onnxruntime."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"onnxruntime-gpu=={version('onnxruntime')}"], check=True
    )
    return python


def placement(python: Path, work: Path, models: dict[str, ir.Model]) -> dict[str, list[Placed]]:
    """Per program where every node runs, as ONNX Runtime's own partitioning has it."""
    find = "import importlib.util as u; print(u.find_spec('onnxruntime').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    cuda_stubs.build(Path(package, "capi", "libonnxruntime_providers_cuda.so"), work / "stubs")
    paths = [work / f"{name}.onnx" for name in models]
    for path, model in zip(paths, models.values(), strict=True):
        ir.save(model, path)
    done = subprocess.run(
        [python, "-c", PARTITION, *paths],
        env={**os.environ, "LD_LIBRARY_PATH": str(work / "stubs")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    return {name: [Placed(*node) for node in nodes] for name, nodes in zip(models, answers, strict=True)}


def is_shape_arithmetic(node: ir.Node) -> bool:
    """Does it make only small integers: sizes, axes, positions?"""
    integers = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}
    return all(out.dtype in integers and out.shape is not None and len(out.shape) <= 1 for out in node.outputs)


def astray(model: ir.Model, placed: list[Placed]) -> list[Placed]:
    """Nodes that are on the CPU provider and are not shape arithmetic."""
    nodes = {node.name: node for node in model.graph}
    on_cpu = [each for each in placed if each.provider == "CPUExecutionProvider"]
    return [each for each in on_cpu if each.name not in nodes or not is_shape_arithmetic(nodes[each.name])]


def main() -> int:
    """Partition, print a line per program, and say what is in the wrong place."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small networks of the same kinds")
    parser.add_argument("--python", type=Path, help="an interpreter with onnxruntime-gpu, instead of a new environment")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = dict(programs(arguments.quick))
        python = arguments.python or gpu_python(work / "venv")
        for name, placed in placement(python.absolute(), work, models).items():
            counts = Counter(node.provider for node in placed)
            strays = astray(models[name], placed)
            print(f"{name}: {dict(counts)}")
            for node in strays:
                print(f"  on the CPU and not shape arithmetic: {node.operator} {node.name!r}")
            if not counts["CUDAExecutionProvider"]:
                print("  nothing is on CUDA: the provider did not load")
            wrong += len(strays) + (not counts["CUDAExecutionProvider"])
    print("every node but shape arithmetic runs on CUDA" if not wrong else "NOT every node runs on CUDA")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
