from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from onnxplain.errors import ProviderUnavailable
from onnxplain.installed import check_onnxruntime


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name.replace("-", "_")]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_both_packages_of_onnxruntime_are_an_error_with_the_command_that_mends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.30.0")
    with pytest.raises(ProviderUnavailable) as caught:
        check_onnxruntime()
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.30.0" in str(caught.value)
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu" in str(caught.value)


@pytest.mark.parametrize("versions", [{}, {"onnxruntime": "1.31.1"}, {"onnxruntime_gpu": "1.31.1"}])
def test_one_or_none_is_not(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    installed(monkeypatch, **versions)
    check_onnxruntime()


IMPORTS = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("onnxruntime", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import onnxplain
assert "grpc" not in sys.modules, "the client is imported when asked for"
assert "onnxplain_convert" not in sys.modules, "and the converter when there is something to convert"
onnxplain.Client
assert "grpc" in sys.modules
"""

LOADS = (
    IMPORTS
    + """
from onnxplain import errors
from onnxplain.engine import Engine
try:
    Engine(None, "auto")
except errors.ProviderUnavailable as error:
    print(error)
"""
)


def test_without_onnxruntime_the_package_imports_and_loading_says_what_to_install() -> None:
    said = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert "onnxplain[cpu]" in said.stdout
