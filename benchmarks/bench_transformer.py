"""The last Transformer block for the last row alone against the same block for all rows, forward and backward.

One thread, CPU seconds, median of a few. Both give the same scores: tests/unit/models/test_transformer.py.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tradsys.models.nets.transformer import TransformerEncoder

N, N_FEATURES = 256, 48
SHAPES = ((32, 1, 32, 4.0), (64, 2, 64, 2.0), (64, 3, 64, 1.4))  # width, layers, bars, aim


def all_rows(net: TransformerEncoder, window_NTF: Tensor) -> Tensor:
    assert net.position_TD is not None
    x_NTD = net.drop(net.project(window_NTF) + net.position_TD)
    for block in net.blocks:
        x_NTD = block(x_NTD)
    return net.head(net.norm(x_NTD[:, -1]))


def cpu_seconds(task: Callable[[], Tensor]) -> float:
    start = time.process_time()
    task().sum().backward()
    return time.process_time() - start


def measure() -> list[dict]:
    torch.set_num_threads(1)
    rows = []
    for width, n_layers, n_bars, aim in SHAPES:
        net = TransformerEncoder(N_FEATURES, 2, n_bars, d_model=width, n_layers=n_layers)
        window_NTF = torch.randn(N, n_bars, N_FEATURES)
        ours, rival = partial(net, window_NTF), partial(all_rows, net, window_NTF)
        pairs = [(cpu_seconds(ours), cpu_seconds(rival)) for _ in range(11)]
        fast, slow = (statistics.median(side) for side in zip(*pairs[1:], strict=True))
        rows.append({
            "name": f"last block for the last row, d {width}, {n_layers} layer(s), T {n_bars}",
            "fast_s": fast, "slow_s": slow, "ratio": slow / fast, "target": f">= {aim}",
        })  # fmt: skip
    return rows
