"""The peer: the same explanations by Captum on PyTorch, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, NoiseTunnel, Saliency
from numpy.typing import NDArray

from benchmarks.networks import Network

BATCH_SIZES = (5, 10, 25, 50)
"""Internal batch sizes tried for methods of 50 rows; the fastest is measured."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """Captum on one network and device. Every call explains one picture (1, 3, h, w) for one class."""

    network: Network
    device: str = "cpu"

    def gradient(self, x: Floats, target: int, batch: int) -> Floats:
        """Plain signed gradient; one row, whatever ``batch``."""
        return self._array(Saliency(self.network.module).attribute(self._tensor(x), target, abs=False))

    def integrated_gradients(self, x: Floats, target: int, batch: int) -> Floats:
        """50 steps of the midpoint rule against zero."""
        method = IntegratedGradients(self.network.module)
        made = method.attribute(
            self._tensor(x), target=target, n_steps=50, method="riemann_middle", internal_batch_size=batch
        )
        return self._array(made)

    def smoothgrad(self, x: Floats, target: int, batch: int) -> Floats:
        """50 samples with a standard deviation of 0.15 of the picture's range."""
        made = NoiseTunnel(Saliency(self.network.module)).attribute(
            self._tensor(x),
            nt_type="smoothgrad",
            nt_samples=50,
            nt_samples_batch_size=batch,
            stdevs=0.15 * float(x.max() - x.min()),
            target=target,
            abs=False,
        )
        return self._array(made)

    def grad_cam(self, x: Floats, target: int, batch: int) -> Floats:
        """Grad-CAM of the network's layer at the picture's size; one row, whatever ``batch``."""
        made: Any = LayerGradCam(self.network.module, self.network.layer).attribute(
            self._tensor(x), target, relu_attributions=True
        )
        return self._array(LayerAttribution.interpolate(made, x.shape[2:], "bilinear"))

    def fastest_batch(self, explain: Callable[[Floats, int, int], Floats], seconds: Callable[..., float]) -> int:
        """The internal batch size with the lowest time; ``seconds`` times a call without arguments."""
        x = np.zeros((1, 3, self.network.size, self.network.size), np.float32)
        return min(BATCH_SIZES, key=lambda batch: seconds(lambda: explain(x, 0, batch)))

    def _tensor(self, x: Floats) -> torch.Tensor:
        # With requires_grad from the start Captum has no reason to warn that it sets it.
        return torch.from_numpy(x).to(self.device).requires_grad_()

    @staticmethod
    def _array(value: Any) -> Floats:
        array: Floats = value.detach().cpu().numpy()
        return array
