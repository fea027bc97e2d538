"""External data stays inside the model's folder: every way out that is known, in every place a tensor can stand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxplain.errors import BadModel
from onnxplain.trust import check_external_data, check_no_external_data, read_proto

VALUES = np.arange(8, dtype=np.float32)
ENTRIES = dict[str, str]


def stored(entries: ENTRIES, dtype: int = TensorProto.FLOAT, dims: tuple[int, ...] = (8,)) -> TensorProto:
    tensor = TensorProto(name="w", data_type=dtype, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(graph: onnx.GraphProto, functions: list[onnx.FunctionProto] | None = None) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def graph_of(nodes: list[onnx.NodeProto], initializers: list[TensorProto] | None = None) -> onnx.GraphProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8])
    return helper.make_graph(nodes, "g", [], [y], initializer=initializers or [])


def dense(tensor: TensorProto) -> onnx.ModelProto:
    return model_of(graph_of([helper.make_node("Identity", ["w"], ["y"])], [tensor]))


def sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Identity", ["w"], ["y"])]))
    indices = numpy_helper.from_array(np.arange(8), "i")
    model.graph.sparse_initializer.add(values=tensor, indices=indices, dims=[8])
    return model


def sparse_indices(tensor: TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Identity", ["w"], ["y"])]))
    model.graph.sparse_initializer.add(values=numpy_helper.from_array(VALUES, "v"), indices=tensor, dims=[8])
    return model


def attribute(tensor: TensorProto) -> onnx.ModelProto:
    return model_of(graph_of([helper.make_node("Constant", [], ["y"], value=tensor)]))


def attribute_list(tensor: TensorProto) -> onnx.ModelProto:
    return model_of(graph_of([helper.make_node("Custom", [], ["y"], domain="local", many=[tensor])]))


def sparse_attribute(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"])
    added = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    added.sparse_tensor.values.CopyFrom(tensor)
    added.sparse_tensor.dims.append(8)
    return model_of(graph_of([node]))


def subgraph(tensor: TensorProto) -> onnx.ModelProto:
    inner = graph_of([helper.make_node("Identity", ["w"], ["y"])], [tensor])
    condition = numpy_helper.from_array(np.array(True), "c")
    return model_of(graph_of([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [condition]))


def function(tensor: TensorProto) -> onnx.ModelProto:
    body = [helper.make_node("Constant", [], ["y"], value=tensor)]
    f = helper.make_function("local", "F", [], ["y"], body, [helper.make_opsetid("", 18)])
    return model_of(graph_of([helper.make_node("F", [], ["y"], domain="local")]), [f])


def training(tensor: TensorProto) -> onnx.ModelProto:
    model = model_of(graph_of([helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(VALUES))]))
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


PLACES = [dense, sparse, sparse_indices, attribute, attribute_list, sparse_attribute, subgraph, function, training]
Place = Callable[[TensorProto], onnx.ModelProto]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models with one honest data file in it, and a secret outside."""
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    models = tmp_path / "models"
    (models / "sub").mkdir(parents=True)
    (models / "ok.bin").write_bytes(VALUES.tobytes())
    (models / "sub" / "ok.bin").write_bytes(VALUES.tobytes())
    (models / "link.bin").symlink_to(tmp_path / "secret.bin")
    (models / "inner_link.bin").symlink_to("ok.bin")
    (models / "folder_link").symlink_to(tmp_path)
    (models / "up").mkdir()
    os.link(tmp_path / "secret.bin", models / "hard.bin")
    os.mkfifo(models / "pipe.bin")
    return models


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("place", PLACES)
def test_own_data_is_taken_and_named_wherever_the_tensor_stands(folder: Path, place: Place) -> None:
    path = saved(folder, place(stored({"location": "sub/ok.bin"})))
    assert check_external_data(path) == [folder.resolve() / "sub" / "ok.bin"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../secret.bin", "hard.bin", "link.bin"])
def test_foreign_data_is_refused_wherever_the_tensor_stands(folder: Path, place: Place, location: str) -> None:
    with pytest.raises(BadModel, match="'w'"):
        check_external_data(saved(folder, place(stored({"location": location}))))


REFUSED = {
    "sub/../../secret.bin": "leaves the model's folder",
    "/etc/hostname": "leaves the model's folder",
    "folder_link/secret.bin": "symbolic link",
    "inner_link.bin": "symbolic link",
    "hard.bin": "hard links",
    "pipe.bin": "not a regular file",
    "sub": "not a regular file",
    ".": "not a regular file",
    "missing.bin": "cannot be read",
    "ok.bin/x": "cannot be read",
    "": "not a relative file name",
    "a\\..\\b": "not a relative file name",
    "C:ok.bin": "not a relative file name",
    "ok.bin\0": "not a relative file name",
    "*/_ORT_MEM_ADDR_/*": "cannot be read",
}


@pytest.mark.parametrize("location", REFUSED)
def test_locations_refused(folder: Path, location: str) -> None:
    with pytest.raises(BadModel, match=REFUSED[location]):
        check_external_data(saved(folder, dense(stored({"location": location}))))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"offset": "-4"}, "not a length or offset"),
        ({"offset": "4"}, "the file has 32"),
        ({"length": "36"}, "the file has 32"),
        ({"length": "16"}, "take 32 bytes"),
        ({"length": str(2**63)}, "the file has 32"),
        ({"length": "0x20"}, "not a length or offset"),
        ({"length": "1_0"}, "not a length or offset"),
    ],
)
def test_ranges_refused(folder: Path, entries: ENTRIES, reason: str) -> None:
    with pytest.raises(BadModel, match=reason):
        check_external_data(saved(folder, dense(stored({"location": "ok.bin", **entries}))))


@pytest.mark.parametrize("entries", [{}, {"offset": "0"}, {"length": "32"}, {"offset": "", "length": ""}])
def test_ranges_taken(folder: Path, entries: ENTRIES) -> None:
    assert check_external_data(saved(folder, dense(stored({"location": "ok.bin", **entries}))))


def test_elements_of_less_than_a_byte_are_counted(folder: Path) -> None:
    good = stored({"location": "ok.bin"}, dtype=TensorProto.INT4, dims=(63,))
    assert check_external_data(saved(folder, dense(good)))
    bad = stored({"location": "ok.bin"}, dtype=TensorProto.INT4, dims=(65,))
    with pytest.raises(BadModel, match="ends at byte 33"):
        check_external_data(saved(folder, dense(bad)))


def test_a_key_given_twice_is_refused(folder: Path) -> None:
    tensor = stored({"location": "ok.bin"})
    tensor.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(BadModel, match="same key twice"):
        check_external_data(saved(folder, dense(tensor)))


def test_entries_without_the_flag_count(folder: Path) -> None:
    tensor = stored({"location": "../secret.bin"})
    tensor.data_location = TensorProto.DEFAULT
    with pytest.raises(BadModel, match="leaves"):
        check_external_data(saved(folder, dense(tensor)))


def test_links_within_the_folder_where_allowed(folder: Path) -> None:
    path = saved(folder, dense(stored({"location": "inner_link.bin"})))
    assert check_external_data(path, links=True) == [folder.resolve() / "ok.bin"]
    for location in ("link.bin", "folder_link/secret.bin"):
        with pytest.raises(BadModel, match="leaves"):
            check_external_data(saved(folder, dense(stored({"location": location}))), links=True)


def test_a_cache_whose_files_are_links_into_one_folder(tmp_path: Path) -> None:
    """As Hugging Face's: snapshots/<revision>/model.onnx -> ../../blobs/<hash>."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aa").write_bytes(dense(stored({"location": "model.onnx_data"})).SerializeToString())
    (blobs / "bb").write_bytes(VALUES.tobytes())
    (snapshot / "model.onnx").symlink_to("../../blobs/aa")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/bb")
    assert check_external_data(snapshot / "model.onnx", links=True) == [blobs.resolve() / "bb"]
    with pytest.raises(BadModel, match="symbolic link"):
        check_external_data(snapshot / "model.onnx")


def test_models_without_external_data_need_no_folder(tmp_path: Path) -> None:
    inline = dense(numpy_helper.from_array(VALUES, "w"))
    check_no_external_data(inline)
    assert check_external_data(saved(tmp_path, inline)) == []
    with pytest.raises(BadModel, match="without a folder"):
        check_no_external_data(dense(stored({"location": "ok.bin"})))


TRUNCATED = dense(numpy_helper.from_array(VALUES)).SerializeToString()[:-9]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08", TRUNCATED])
def test_files_that_are_not_models(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(BadModel, match=r"net\.onnx: not an ONNX model"):
        read_proto(path)


def test_paths_that_are_not_files(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="not a file"):
        read_proto(tmp_path)
    with pytest.raises(BadModel, match="cannot be read"):
        read_proto(tmp_path / "none.onnx")
