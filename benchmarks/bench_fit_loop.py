"""What a fit costs over a bare PyTorch loop with the same net, data, order and saves; Lightning's loop beside it.

On one thread and in CPU seconds, so that what else runs on the machine does not count.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import pytorch_lightning as L
import torch
from random_samples import make_samples

from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.fitting import fit_module
from tradsys.models.training.lit import LitClassifier, warmup_cosine
from tradsys.models.training.loop import DirectLoop
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

N_FEATURES, EPOCHS, ROUNDS = 24, 2, 5


def direct(module: LitClassifier, train: WindowLoader, valid: WindowLoader) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainerSettings(max_epochs=EPOCHS, patience=EPOCHS)
        fit_module(module, train, valid, settings=settings, workdir=Path(folder), fingerprint="bench")


def lightning(module: LitClassifier, train: WindowLoader, valid: WindowLoader) -> None:
    with mock.patch.object(DirectLoop, "serves", staticmethod(lambda *_: False)):
        direct(module, train, valid)


def bare(module: LitClassifier, train: WindowLoader, valid: WindowLoader) -> None:
    n_steps = EPOCHS * len(train)
    optimizer = torch.optim.AdamW(module.net.parameters(), lr=module.lr, weight_decay=module.weight_decay, fused=True)
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


def _compared(name: str, *, lookback: int, n_train: int, batch_size: int, aim: float, net: partial) -> dict:
    train_samples, valid_samples = make_samples(n_train, lookback, 0), make_samples(n_train // 4, lookback, 1)
    runs = (direct, bare, lightning)
    times: dict = {run: [] for run in runs}
    for k in range(ROUNDS + 1):
        for run in runs[k % 3 :] + runs[: k % 3]:  # turn and turn about, so that drift hits all alike
            torch.manual_seed(0)
            module = LitClassifier(net(N_FEATURES, 2, lookback))
            cut = partial(WindowLoader.from_samples, lookback=lookback, batch_size=batch_size)
            train, valid = cut(train_samples, shuffle=True), cut(valid_samples)
            start = time.process_time()
            run(module, train, valid)
            if k:  # the first of each warms up
                times[run].append(time.process_time() - start)
    ours_s, bare_s, lightning_s = (statistics.median(times[run]) for run in runs)
    return {
        "name": name,
        "fast_s": ours_s,
        "slow_s": bare_s,
        "ratio": ours_s / bare_s,
        "note": f"{100 * (ours_s / bare_s - 1):+.1f} % over a bare loop, Lightning "
        f"{100 * (lightning_s / bare_s - 1):+.1f} %; {EPOCHS * len(train)} steps, medians of {ROUNDS}, one thread, "
        f"pytorch_lightning {L.__version__}",
        "target": f"ratio < {aim:.2f}",
    }


def measure() -> list[dict]:
    """CPU seconds of one fit (fast_s) and of a bare loop (slow_s); ratio = ours / bare."""
    small = partial(TransformerEncoder, d_model=32, n_heads=4, n_layers=1)
    tiny = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _compared("fit: d 32, batches of 256", lookback=32, n_train=20_000, batch_size=256, aim=1.05, net=small),
            _compared("fit: d 8, batches of 32", lookback=8, n_train=16_000, batch_size=32, aim=1.15, net=tiny),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in measure():
        print(row)
