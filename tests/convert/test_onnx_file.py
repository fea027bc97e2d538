"""Files that are no models, or broken, or reach outside their folder: one clear error each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxplain.errors import BadModel, BadRequest
from onnxplain_convert import convert
from onnxplain_convert.frontends import onnx_file, read
from tests.convert.models import constant, model, normal


def net() -> onnx.ModelProto:
    return constant(model(18, "(float[n, 40] x) => (float[n, 40] y) { y = MatMul (x, w) }"), w=normal(40, 40))


def test_path_bytes_and_proto_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(net(), path)
    digests = {convert(given).manifest.digest for given in (path, str(path), path.read_bytes(), net())}
    assert len(digests) == 1


def test_what_the_source_says_of_itself(tmp_path: Path) -> None:
    proto = net()
    proto.producer_name, proto.producer_version = "someone", "3.1"
    onnx.save(proto, tmp_path / "net.onnx")
    assert read(tmp_path / "net.onnx").info == {
        "framework": "onnx",
        "producer": "someone 3.1",
        "opset": {"ai.onnx": 18},
        "file": "net.onnx",
    }


BROKEN = {
    "no such file": (None, "none.onnx: cannot be read"),
    "empty": (b"", "not an ONNX model"),
    "text": (b"# a readme, not a model\n" * 50, "not an ONNX model"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "not an ONNX model"),
    "truncated": (net().SerializeToString()[:-2000], "truncated"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case: str, tmp_path: Path) -> None:
    content, told = BROKEN[case]
    path = tmp_path / "none.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadModel, match=told):
        convert(path)


def test_a_weight_with_too_few_bytes(tmp_path: Path) -> None:
    proto = net()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-8]
    with pytest.raises(BadModel, match="'w'"):
        convert(proto)


def external(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(net(), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


def relocated(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("location", ["../net.bin", "/etc/hostname", "sub/../../net.bin"])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "models").mkdir()
    path = external(tmp_path / "models")
    (tmp_path / "net.bin").write_bytes((path.parent / "net.bin").read_bytes())
    relocated(path, location)
    with pytest.raises(BadModel, match="leaves the model's folder"):
        convert(path)


def test_external_data_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = external(tmp_path / "models")
    (path.parent / "net.bin").rename(tmp_path / "net.bin")
    os.symlink(tmp_path / "net.bin", path.parent / "net.bin")
    with pytest.raises(BadModel, match="symbolic link"):
        convert(path)


def test_external_data_that_is_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "net.bin"
    content = data.read_bytes()
    data.write_bytes(content[:-4])
    with pytest.raises(BadModel, match="ends at byte"):
        convert(path)
    data.unlink()
    with pytest.raises(BadModel, match="cannot be read"):
        convert(path)


def test_bytes_have_no_folder(tmp_path: Path) -> None:
    path = external(tmp_path)
    with pytest.raises(BadModel, match="without a folder"):
        convert(path.read_bytes())


def test_examples_by_order_and_by_name() -> None:
    two = model(18, "(float[n, 2] a, float[n, 2] b) => (float[n, 2] y) { y = Add (a, b) }")
    a, b = normal(1, 2), normal(1, 2, seed=1)
    for example in ((a, b), {"a": a, "b": b}):
        found = onnx_file.to_onnx(two, example).example
        assert found is not None
        np.testing.assert_array_equal(found["b"], b)
    with pytest.raises(BadRequest, match="2 inputs: a, b"):
        onnx_file.to_onnx(two, a)
