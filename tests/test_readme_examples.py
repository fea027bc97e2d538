"""README's worked examples run as they stand there, on a small network called net.onnx and a picture called cat.jpg."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxplain.cli import main
from onnxplain.serve.server import Server
from tests import readme

TEXT = readme.README.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line.strip() for line in TEXT.splitlines() if re.match(r" {4}onnxplain (inspect|explain|convert) ", line)]

NETWORK = """<ir_version: 10, opset_import: ["" : 20]> net (float[n, 3, 224, 224] input) => (float[n, 300] logits)
{
    a = Conv <strides = [8, 8]> (input, kernel)
    b = Relu (a)
    c = GlobalAveragePool (b)
    d = Flatten (c)
    logits = Gemm (d, weight, bias)
}"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a reader: net.onnx, models/net.onnx, cat.jpg; nothing is left in the user's cache."""
    draw = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in (("kernel", (4, 3, 8, 8)), ("weight", (4, 300)), ("bias", (300,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name))
    (tmp_path / "models").mkdir()
    for path in (tmp_path / "net.onnx", tmp_path / "models" / "net.onnx"):
        onnx.save(model, path)
    Image.fromarray(draw.integers(0, 255, (240, 320, 3), dtype=np.uint8)).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """Where models/ is served."""
    server = Server(folder / "models", port=0, provider="cpu")
    server.load()
    yield f"localhost:{server.port}"
    server.drain()


def test_readme_has_an_example_of_each() -> None:
    assert COMMANDS
    assert [("onnxplain.load(" in block, "onnxplain.Client(" in block) for block in BLOCKS] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command: str, folder: Path) -> None:
    result = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    named = re.findall(r"(?:-o|--save) (\S+)", command)
    assert all((folder / name).stat().st_size for name in named)


def test_the_python_example(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    assert "(2, 3, 224, 224)" in capsys.readouterr().out


def test_the_grpc_example(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[1].replace("localhost:8001", address), "README.md", "exec"), {})
    assert "(2, 3, 224, 224)" in capsys.readouterr().out
