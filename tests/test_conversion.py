from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxplain
import onnxplain_convert
from onnxplain.conversion import converted, opened
from onnxplain.errors import BadModel, BadRequest
from tests import models


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "twin.onnx"
    onnx.save(models.model(models.TWIN_F), path)
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was converted, by the converter itself."""
    done: list[Any] = []
    real = onnxplain_convert.convert

    def convert(source: Any, *rest: Any, **options: Any) -> Any:
        done.append(source)
        return real(source, *rest, **options)

    monkeypatch.setattr(onnxplain_convert, "convert", convert)
    return done


def test_a_plain_file_is_converted_once(plain: Path, tmp_path: Path, conversions: list[Any]) -> None:
    cache = tmp_path / "cache"
    for _ in range(2):
        with onnxplain.load(plain, "cpu", cache=cache) as model:
            e = model.explain(np.array([[3.0, 1.0]], np.float32))
            np.testing.assert_array_equal(e.attributions["x"], [[1.0, -1.0]])
    assert conversions == [plain]
    copy = tmp_path / "other_name.onnx"
    copy.write_bytes(plain.read_bytes())
    opened(copy, cache)
    assert conversions == [plain], "the same bytes under another name are the same model"
    onnx.save(models.model(models.TWIN_G), plain)
    opened(plain, cache)
    assert conversions == [plain, plain]


def test_an_artifact_needs_no_converter(plain: Path, tmp_path: Path, conversions: list[Any]) -> None:
    artifact = tmp_path / "twin.explain.onnx"
    onnxplain_convert.convert(plain, artifact)
    opened(artifact, tmp_path / "cache")
    assert len(conversions) == 1
    assert not (tmp_path / "cache").exists()


def test_a_broken_artifact_in_the_cache_is_made_anew(plain: Path, tmp_path: Path, conversions: list[Any]) -> None:
    kept = converted(plain, tmp_path / "cache")
    kept.write_bytes(kept.read_bytes()[:100])
    opened(plain, tmp_path / "cache")
    assert len(conversions) == 2


def test_external_data_is_part_of_the_digest(tmp_path: Path, conversions: list[Any]) -> None:
    path = tmp_path / "cnn.onnx"
    for seed in (0, 1):
        onnx.save(models.model(models.CNN, seed), path, save_as_external_data=True, location="w.bin", size_threshold=0)
        opened(path, tmp_path / "cache")
    assert len(conversions) == 2
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BadModel, match=r"w\.bin"):
        opened(path, tmp_path / "cache")


def test_without_a_cache_folder_it_is_made_in_memory(plain: Path, tmp_path: Path, conversions: list[Any]) -> None:
    (tmp_path / "file").write_text("no folder")
    assert opened(plain, tmp_path / "file" / "cache").manifest.rules
    assert len(conversions) == 1


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x0a\x12"])
def test_what_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(BadModel, match=r"broken\.onnx"):
        onnxplain.load(path, cache=tmp_path / "cache")
    with pytest.raises(BadModel, match=r"absent\.onnx"):
        onnxplain.load(tmp_path / "absent.onnx")


def test_a_model_in_memory_is_to_be_converted_first() -> None:
    proto: Any = models.model(models.TWIN_F)
    with pytest.raises(BadRequest, match="got a ModelProto: convert it first"):
        onnxplain.load(proto)
