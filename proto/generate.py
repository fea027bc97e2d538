"""Generate the Python code of every .proto beside this file into runtime/, or check that it is up to date.

    python proto/generate.py            # write runtime/onnxplain/v1/*_pb2*.py and .pyi
    python proto/generate.py --check    # exit 1 and name the files where the committed code is another

In an environment that has the pinned tools below, the same by hand, from the repository's root:

    python -m grpc_tools.protoc -I proto --python_out=runtime --grpc_python_out=runtime --mypy_out=runtime \
        --mypy_grpc_out=runtime onnxplain/v1/explain.proto

The tools get a virtual environment of their own, thrown away afterwards: generated code runs on its own and later
versions of protobuf and grpcio only, so the pin is the oldest that we support, and the newest health service will not
share an environment with it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TOOLS = ("grpcio-tools==1.78.0", "mypy-protobuf==5.1.0", "protobuf==6.33.6")
"""Emits code for protobuf >= 6.31.1 and grpcio >= 1.78.0."""

HERE = Path(__file__).resolve().parent
RUNTIME = HERE.parent / "runtime"


def generate(python: Path, out: Path) -> list[Path]:
    """Generate into ``out`` with the tools of the interpreter ``python``; the files made, relative to ``out``."""
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.proto"))
    plugins = (f"--plugin=protoc-gen-{name}={python.parent / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc"))
    outs = (f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc"))
    subprocess.run([python, "-m", "grpc_tools.protoc", "-I", HERE, *plugins, *outs, *sources], check=True)
    return sorted(path.relative_to(out) for path in out.rglob("*.py*") if path.is_file())


def main() -> int:
    """Exit code 1 where ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(description="generate the Python code of the .proto files into runtime/")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the committed code differs")
    parser.add_argument("--python", type=Path, help="an interpreter that has the tools, instead of installing them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = arguments.python
        if python is None:
            venv.create(f"{folder}/venv", with_pip=True)
            python = Path(folder, "venv", "bin", "python")
            subprocess.run([python, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        out = Path(folder, "out")
        out.mkdir()
        made = {path: (out / path).read_text() for path in generate(python.absolute(), out)}
    # A file that is committed but no longer generated is as wrong as one that differs.
    committed = {path.relative_to(RUNTIME) for path in RUNTIME.glob("onnxplain/v*/*_pb2*")}
    stale = {path for path, text in made.items() if path not in committed or (RUNTIME / path).read_text() != text}
    for path in sorted(stale | (committed - made.keys())):
        print(f"{'differs from' if arguments.check else 'written from'} the .proto: {path}")
        if arguments.check:
            continue
        if path in made:
            (RUNTIME / path).write_text(made[path])
        else:
            (RUNTIME / path).unlink()
    return 1 if arguments.check and stale | (committed - made.keys()) else 0


if __name__ == "__main__":
    sys.exit(main())
