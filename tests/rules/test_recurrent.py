"""LSTM, GRU and RNN against PyTorch's, with sequence lengths, initial states, both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.rules.graphs import EXACT, ROUNDED, distance, gradients, model

STEPS, BATCH, FEATURES, HIDDEN = 4, 3, 2, 3
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ORDER = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}
"""ONNX's gate order in terms of PyTorch's: iofc from ifgo, zrh from rzn."""


def reordered(weight: torch.Tensor, operator: str) -> np.ndarray:
    parts = weight.detach().numpy().reshape(GATES[operator], HIDDEN, -1)
    return parts[ORDER[operator]].reshape(GATES[operator] * HIDDEN, -1)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 2, 3]])
@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
def test_against_pytorch(operator: str, lengths: list[int] | None, bidirectional: bool) -> None:
    torch.manual_seed(0)
    kind: dict[str, Any] = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}
    net = kind[operator](FEATURES, HIDDEN, bidirectional=bidirectional).double()
    suffixes = ["", "_reverse"] if bidirectional else [""]
    w = np.stack([reordered(getattr(net, f"weight_ih_l0{s}"), operator) for s in suffixes])
    r = np.stack([reordered(getattr(net, f"weight_hh_l0{s}"), operator) for s in suffixes])
    biases = [[reordered(getattr(net, f"bias_{k}_l0{s}"), operator)[:, 0] for k in ("ih", "hh")] for s in suffixes]
    count = len(suffixes)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((STEPS, BATCH, FEATURES))
    h0 = rng.standard_normal((count, BATCH, HIDDEN))
    feeds = {"x": x, "w": w, "r": r, "b": np.stack([np.concatenate(b) for b in biases]), "h0": h0}
    feeds["lens"] = np.asarray(lengths or [STEPS] * BATCH, np.int32)
    width = GATES[operator] * HIDDEN
    direction = "bidirectional" if bidirectional else "forward"
    reset = ", linear_before_reset = 1" if operator == "GRU" else ""  # PyTorch's variant
    text = f"""g (float[{STEPS},{BATCH},{FEATURES}] x, float[{count},{width},{FEATURES}] w,
        float[{count},{width},{HIDDEN}] r, float[{count},{2 * width}] b, int32[{BATCH}] lens,
        float[{count},{BATCH},{HIDDEN}] h0) => (float[{STEPS},{count},{BATCH},{HIDDEN}] y) {{
      y = {operator} <hidden_size = {HIDDEN}, direction = "{direction}"{reset}> (x, w, r, b, lens, h0)
    }}"""
    seed = rng.standard_normal((STEPS, count, BATCH, HIDDEN))
    found = gradients(model(text), feeds, seed, ["x", "h0", "w", "r", "b"])

    tx, th = torch.tensor(x, requires_grad=True), torch.tensor(h0, requires_grad=True)
    state: Any = (th, torch.zeros_like(th)) if operator == "LSTM" else th
    packed = torch.nn.utils.rnn.pack_padded_sequence(tx, torch.tensor(feeds["lens"]).long(), enforce_sorted=False)
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(net(packed, state)[0], total_length=STEPS)
    out = out.reshape(STEPS, BATCH, count, HIDDEN).permute(0, 2, 1, 3)
    torch.autograd.backward((out * torch.tensor(seed)).sum())

    assert tx.grad is not None
    assert th.grad is not None
    want = {"x": tx.grad.numpy(), "h0": th.grad.numpy()}
    want["w"] = np.stack([reordered(getattr(net, f"weight_ih_l0{s}").grad, operator) for s in suffixes])
    want["r"] = np.stack([reordered(getattr(net, f"weight_hh_l0{s}").grad, operator) for s in suffixes])
    for name, array in want.items():
        assert distance(found.exact[name], array) < EXACT, name
        assert distance(found.rounded[name], array) < ROUNDED, name
