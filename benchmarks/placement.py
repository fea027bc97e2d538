"""Which provider runs which node of the gradient programs on CUDA? ``python -m benchmarks.placement``, without a GPU.

Makes a virtual environment with onnxruntime-gpu (of this environment's version), stand-ins for the CUDA libraries, and
the programs of a CNN and a transformer under every rule set (``--all``: of every network that the tests differentiate);
then lets the CUDA provider partition them. A node on the CPU provider other than shape arithmetic is a copy to the host
and back in every run: the exit status is then 1.
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

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

import onnxplain_convert
from benchmarks import cuda_stubs
from benchmarks.onnx_networks import resnet, vit
from onnxplain.artifact import Artifact
from onnxplain.engine.program import build
from onnxplain.rows import Purpose

PARTITION = """
import json, sys
import onnxruntime as ort

ort.set_default_logger_severity(4)
if sys.argv[1] == "real":
    ort.preload_dlls()
answer = []
for path in sys.argv[2:]:
    options = ort.SessionOptions()
    # Partitioning comes after the basic optimisations: the graph after them has the nodes that it names.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = path
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


def programs(name: str, artifact: Artifact) -> Iterator[tuple[str, ir.Model]]:
    """The gradient program of an artifact under every rule set, with the type of every tensor."""
    wrt = tuple(spec.name for spec in artifact.manifest.differentiated)
    for rules in artifact.manifest.rules:
        model = build(artifact, Purpose(artifact.manifest.default_output, rules, wrt)).model
        yield f"{name}.{rules}", ShapeInferencePass()(model).model


def sources(paths: list[Path], every: bool) -> Iterator[tuple[str, Path | onnx.ModelProto]]:
    """The models to look at: files that were named, else a CNN and a transformer, or all that the tests have."""
    yield from ((path.stem, path) for path in paths)
    if not paths:
        yield "resnet-50", resnet()
        yield "vit-b16", vit()
    if every:
        from tests.gradients import networks  # needs the test extra

        for name, make in networks.NETWORKS.items():
            module = networks.enlivened(make().double(), networks.inputs(name, 64, seed=1)).float()
            example = networks.inputs(name, 2)
            yield name, networks.exported(module, example.float() if example.is_floating_point() else example)


def gpu_python(folder: Path) -> Path:
    """The interpreter of a new environment with onnxruntime-gpu alone: it must not share one with onnxruntime."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"onnxruntime-gpu=={version('onnxruntime')}"], check=True
    )
    return python


def stub(python: Path, folder: Path) -> Path:
    """Stand-ins for the CUDA libraries that this interpreter's onnxruntime-gpu is linked to, in ``folder``."""
    find = "import importlib.util as u; print(u.find_spec('onnxruntime').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    cuda_stubs.build(Path(package, "capi", "libonnxruntime_providers_cuda.so"), folder)
    return folder


@dataclass(frozen=True)
class Partitioned:
    """A program as ONNX Runtime partitioned it, after its basic optimisations, and where each node runs."""

    model: ir.Model
    placed: list[Placed]

    def astray(self) -> list[Placed]:
        """Nodes that are on the CPU provider and are not shape arithmetic."""
        nodes = {node.name: node for node in self.model.graph}
        on_cpu = [each for each in self.placed if each.provider == "CPUExecutionProvider"]
        return [each for each in on_cpu if each.name not in nodes or not is_shape_arithmetic(nodes[each.name])]


def is_shape_arithmetic(node: ir.Node) -> bool:
    """Does it make only small integers: sizes, axes, positions, the pads of every axis as a matrix?"""
    integers = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}
    return all(out.dtype in integers and out.shape is not None and _is_small(out.shape) for out in node.outputs)


def _is_small(shape: ir.Shape) -> bool:
    sizes = [size for size in shape if isinstance(size, int)]
    return len(shape) <= 1 or (len(shape) == 2 and bool(sizes) and min(sizes) <= 2)


def partitioned(python: Path, models: dict[str, ir.Model], stubs: Path | None = None) -> dict[str, Partitioned]:
    """Every program by ONNX Runtime's own partitioning; on a real GPU without ``stubs``."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs)} if stubs else dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.onnx") for name in models]
        for path, model in zip(paths, models.values(), strict=True):
            ir.save(model, path)
        done = subprocess.run(
            [python, "-c", PARTITION, "stubs" if stubs else "real", *paths],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        after = [ShapeInferencePass()(ir.from_proto(onnx.load(path))).model for path in paths]
    answers = [[Placed(*node) for node in nodes] for nodes in json.loads(done.stdout)]
    return {name: Partitioned(*each) for name, each in zip(models, zip(after, answers, strict=True), strict=True)}


def reported(programs: dict[str, Partitioned]) -> int:
    """Print a line per program and one per node in the wrong place; how many there are."""
    wrong = 0
    for name, program in programs.items():
        counts = Counter(node.provider for node in program.placed)
        strays = program.astray()
        print(f"{name}: {', '.join(f'{n} nodes on {provider}' for provider, n in counts.items())}")
        for node in strays:
            print(f"  on the CPU and not shape arithmetic: {node.operator} {node.name!r}")
        if not counts["CUDAExecutionProvider"]:
            print("  nothing is on CUDA: the provider did not load")
        wrong += len(strays) + (not counts["CUDAExecutionProvider"])
    print("every node but shape arithmetic runs on CUDA" if not wrong else "NOT every node runs on CUDA")
    return wrong


def main() -> int:
    """Partition the programs and say what is in the wrong place."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="ONNX files, instead of a ResNet-50 and a ViT-B/16")
    parser.add_argument("--all", action="store_true", help="every network of the tests too, small and in float32")
    parser.add_argument("--python", type=Path, help="an interpreter with onnxruntime-gpu, instead of a new environment")
    arguments = parser.parse_args()
    models: dict[str, ir.Model] = {}
    for name, source in sources(arguments.models, arguments.all):
        models |= programs(name, onnxplain_convert.convert(source))
    with tempfile.TemporaryDirectory() as work:
        python = arguments.python or gpu_python(Path(work, "venv"))
        return int(reported(partitioned(python, models, stub(python, Path(work, "stubs")))) > 0)


if __name__ == "__main__":
    sys.exit(main())
