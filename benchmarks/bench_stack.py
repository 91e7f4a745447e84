"""Five seeds of a net as one stack against the same five trained one after another.

One thread, CPU seconds, the best of a few rounds taken in turn. Both end with the same weights to rounding:
tests/unit/models/training/stacks. `models.training.stacks.together.CPU_WORK` follows from these figures.
"""

import time
from dataclasses import replace
from functools import partial

import torch
from random_samples import make_samples

from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stacks.together import gains
from tradsys.models.training.trainer import TrainerSettings

N_FEATURES, N_SEEDS, ROUNDS = 24, 5, 2
SHAPES = ((8, 8, 32, 1_500), (8, 8, 256, 6_000), (16, 16, 64, 1_500), (32, 32, 256, 2_500))  # d, T, B, rows


def _compared(width: int, lookback: int, batch_size: int, n_rows: int) -> dict:
    train, valid = make_samples(n_rows, lookback, 0), make_samples(n_rows // 4, lookback, 1)
    net = partial(TransformerEncoder, d_model=width, n_heads=2, n_layers=1)
    base = SequenceModel(net, partial(LitClassifier), TrainerSettings(max_epochs=2), lookback, batch_size)
    models = [replace(base, seed=seed) for seed in range(N_SEEDS)]
    times: tuple[list[float], list[float]] = ([], [])
    for k in range(2 * ROUNDS + 2):
        start = time.process_time()
        if (k + k // 2) % 2:
            assert base.fit_together(models, train, valid, workdir=None, stacked=True)
        else:
            for model in models:
                model.fit(train, valid)
        if k >= 2:
            times[(k + k // 2) % 2].append(time.process_time() - start)
    slow, fast = min(times[0]), min(times[1])
    chosen = gains(base, net(n_features=N_FEATURES, n_classes=2, lookback=lookback))
    return {
        "name": f"{N_SEEDS} seeds as a stack, d {width}, T {lookback}, B {batch_size}",
        "fast_s": fast,
        "slow_s": slow,
        "ratio": slow / fast,
        "note": f"one after another {slow:.2f} s; chosen by itself on a CPU: {'yes' if chosen else 'no'}",
        "target": "> 1 where it is chosen by itself",
    }


def measure() -> list[dict]:
    """CPU seconds as a stack (fast_s) and one after another (slow_s)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_compared(*shape) for shape in SHAPES]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in measure():
        print(row)
