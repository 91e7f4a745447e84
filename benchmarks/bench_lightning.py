"""What the Lightning fit costs over a bare PyTorch loop with the same net, data, order and saves.

On one thread and in CPU seconds, so that what else runs on the machine does not count.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as L
import torch
from random_samples import make_samples

from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.fitting import fit_module
from tradsys.models.training.lit import LitClassifier, warmup_cosine
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

N_FEATURES, BATCH, EPOCHS, ROUNDS = 24, 256, 2, 3


def lightning(module: LitClassifier, train: WindowLoader, valid: WindowLoader) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainerSettings(max_epochs=EPOCHS, patience=EPOCHS)
        fit_module(module, train, valid, settings=settings, workdir=Path(folder), fingerprint="bench")


def bare(module: LitClassifier, train: WindowLoader, valid: WindowLoader) -> None:
    n_steps = EPOCHS * len(train)
    optimizer = torch.optim.AdamW(module.net.parameters(), lr=module.lr, weight_decay=module.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: warmup_cosine(k, n_steps, 0.1))
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(EPOCHS):
            train.set_epoch(epoch)
            module.train()
            for window_NTF, y_N, weight_N in train:
                optimizer.zero_grad()
                loss = module.loss(module.net(window_NTF), y_N, weight_N)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(module.net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            module.eval()
            with torch.inference_mode():
                scores = [module.net(window_NTF) for window_NTF, _, _ in valid]
                torch.nn.functional.cross_entropy(torch.cat(scores), valid.y_N).item()
            state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "last.ckpt")
            torch.save(module.state_dict(), Path(folder) / "best.ckpt")


def _compared(name: str, lookback: int, n_train: int, net: partial) -> dict:
    train_samples, valid_samples = make_samples(n_train, lookback, 0), make_samples(n_train // 4, lookback, 1)
    times: dict = {lightning: [], bare: []}
    for k in range(2 * ROUNDS + 2):
        torch.manual_seed(0)
        module = LitClassifier(net(N_FEATURES, 2, lookback))
        cut = partial(WindowLoader.from_samples, lookback=lookback, batch_size=BATCH)
        train, valid = cut(train_samples, shuffle=True), cut(valid_samples)
        run = (lightning, bare)[(k + k // 2) % 2]  # turn and turn about, so that drift hits both alike
        start = time.process_time()
        run(module, train, valid)
        if k >= 2:  # the first of each warms up
            times[run].append(time.process_time() - start)
    fast_s, slow_s = min(times[lightning]), min(times[bare])
    step_us = 1e6 * (fast_s - slow_s) / (EPOCHS * len(train))
    return {
        "name": name,
        "fast_s": fast_s,
        "slow_s": slow_s,
        "ratio": fast_s / slow_s,
        "note": f"Lightning {100 * (fast_s / slow_s - 1):+.1f} % over a bare loop, {step_us:.0f} us a step; "
        f"best of {ROUNDS}, one thread, pytorch_lightning {L.__version__}",
        "target": "ratio < 1.10" if name.startswith("fit") else "",
    }


def measure() -> list[dict]:
    """CPU seconds of one fit under Lightning (fast_s) and bare (slow_s); ratio = Lightning / bare."""
    default = partial(TransformerEncoder, d_model=64, n_heads=4, n_layers=2)
    tiny = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _compared("fit: default Transformer, 64 bars", 64, 1_200, default),
            _compared("overhead: a net too small to hide it", 8, 20_000, tiny),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in measure():
        print(row)
