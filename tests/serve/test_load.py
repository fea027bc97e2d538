"""A file of the models folder on its way to a model: refused, converted apart within limits, warmed up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxplain.artifact import Preprocessing, TensorSpec
from onnxplain.engine import Scheduler
from onnxplain.errors import BadModel, BadRequest, OnnxplainError, Unavailable, Unsupported
from onnxplain.explain import Model
from onnxplain.serve.convert import convert_apart
from onnxplain.serve.limits import MIB, Limits
from onnxplain.serve.load import FREE_AXIS, load_and_warm_up, row_shape, warm_up
from onnxplain.serve.models import Models, State
from tests.serve import nets
from tests.serve.fakes import FakeModel, manifest

LIMITS = Limits()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler()
    yield scheduler
    scheduler.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(nets.smooth(), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def loaded(path: Path, scheduler: Scheduler, limits: Limits = LIMITS) -> Model:
    return load_and_warm_up(path, provider="cpu", scheduler=scheduler, limits=limits, stop=lambda: False)


def test_a_plain_file_is_converted_apart_and_ready(path: Path, scheduler: Scheduler) -> None:
    with loaded(path, scheduler) as model:
        e = model.explain(np.ones((2, 7), np.float32))
    assert e.attributions["x"].shape == (2, 7)


def test_the_artifact_is_kept_and_found_again(path: Path) -> None:
    first = convert_apart(path, LIMITS, lambda: False)
    made = first.stat().st_mtime_ns
    assert convert_apart(path, LIMITS, lambda: False) == first
    assert first.stat().st_mtime_ns == made


def test_a_cache_that_cannot_be_written_to_is_done_without(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file in place of the folder: this holds for the superuser too, whom no permission stops.
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "cache").write_bytes(b"")
    artifact = convert_apart(path, LIMITS, lambda: False)
    assert artifact.is_relative_to(tmp_path / "temporary")
    assert artifact.is_file()


def test_a_conversion_that_takes_too_long_is_ended(path: Path) -> None:
    with pytest.raises(BadModel, match="took more than 0 s: convert it beforehand"):
        convert_apart(path, Limits(convert_seconds=0.0), lambda: False)


def test_a_conversion_that_takes_too_much_memory_is_ended(path: Path) -> None:
    # So little that even the imports fail: in which way is up to the library that meets it first.
    with pytest.raises(BadModel, match=r"net\.onnx: conversion (needs|failed|ended)"):
        convert_apart(path, Limits(convert_bytes=150 * MIB), lambda: False)


def test_a_conversion_ends_with_the_server(path: Path) -> None:
    with pytest.raises(Unavailable, match="the server stops"):
        convert_apart(path, LIMITS, lambda: True)


def test_what_the_converter_says_comes_through(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["y"], "odd", domain="elsewhere")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("elsewhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "net.onnx")
    with pytest.raises(OnnxplainError, match="Mystery") as caught:
        convert_apart(tmp_path / "net.onnx", LIMITS, lambda: False)
    assert isinstance(caught.value, (Unsupported, BadModel))


def test_foreign_external_data_is_never_read(tmp_path: Path, scheduler: Scheduler) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(np.ones(63, np.float32).tobytes())
    models = tmp_path / "models"
    models.mkdir()
    os.link(secret, models / "weights.bin")
    model = nets.smooth()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (models / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match="hard links"):
        loaded(models / "net.onnx", scheduler)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_file(path: Path, scheduler: Scheduler, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BadModel, match=r"net\.onnx|written incompletely"):
        loaded(path, scheduler)


def test_flipped_bytes_end_in_a_reason_and_never_in_a_crash(path: Path, scheduler: Scheduler) -> None:
    artifact = convert_apart(path, LIMITS, lambda: False).read_bytes()
    draw = np.random.default_rng(0)
    paths = {}
    for k in range(20):
        content = bytearray(artifact)
        for place in draw.integers(0, len(content), 3):
            content[place] ^= int(draw.integers(1, 256))
        paths[f"net{k}"] = path.with_name(f"net{k}.onnx")
        paths[f"net{k}"].write_bytes(content)
    models = Models(paths)
    # What is no artifact any more is not converted here: that happens in a child, and takes its time.
    models.load(lambda path: loaded(path, scheduler, Limits(convert_seconds=0.0)), lambda: False, lambda entry: None)
    assert all(entry.state is State.READY or entry.reason for entry in models)
    assert any(entry.state is State.FAILED for entry in models)
    models.close()


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        (("n", 3, 8, 8), None, ((1, 3, 8, 8), False)),
        ((2, 3), None, ((2, 3), False)),
        ((), None, ((), False)),
        (("n", "tokens"), None, ((1, FREE_AXIS), True)),
        ((None, 3, None, None), "NCHW", ((1, 3, 32, 48), False)),
        ((None, "h", "w", 3), "NHWC", ((1, 32, 48, 3), False)),
        ((None, 3, None, None), None, ((1, 3, FREE_AXIS, FREE_AXIS), True)),
    ],
)
def test_the_shape_of_the_warm_up(
    shape: tuple[int | str | None, ...], layout: str | None, expected: tuple[tuple[int, ...], bool]
) -> None:
    known = manifest()
    if layout:
        pixels = Preprocessing(layout=layout, color="RGB", size=(32, 48), mean=(0.0,) * 3, std=(1.0,) * 3)
        known = type(known)(**{**vars(known), "preprocessing": pixels})
    assert row_shape(TensorSpec("x", "float32", shape), known) == expected


def test_a_failing_warm_up_counts_unless_its_shape_was_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    model = FakeModel(fails=BadRequest("too short"))
    with pytest.raises(BadRequest, match="too short"):
        warm_up(model, "net.onnx")
    free = TensorSpec("x", "float32", ("n", "tokens"))
    model.manifest = type(model.manifest)(**{**vars(model.manifest), "inputs": (free,)})
    warm_up(model, "net.onnx")
    assert "too short" in caplog.text
