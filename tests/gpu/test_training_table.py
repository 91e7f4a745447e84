"""Speed of training on the GPU at hand, printed as a table by `make gpu`; what it checks is that every row ran.

Needs torch, pytorch_lightning, numpy, numba, onnx and pytest alone.
"""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_samples import make_samples
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
N_FEATURES = 48
STEPS = 50


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(task, device, n=STEPS):
    for _ in range(3):
        task()
    wait(device)
    start = time.perf_counter()
    for _ in range(n):
        task()
    wait(device)
    return (time.perf_counter() - start) / n


def peak_flops(device, size):
    """Multiply-adds times two per second of one large bf16 product: the arithmetic limit that can be reached here."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, 10)


def step_row(device, width, lookback, batch_size, limit, *, compiled):
    """One net: milliseconds a step, windows a second, shares of loading and of the arithmetic limit."""
    net = TransformerEncoder(N_FEATURES, 2, lookback, d_model=width, n_heads=4, n_layers=2)
    module = LitClassifier(net).to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    loader = WindowLoader.from_samples(
        make_samples(4 * batch_size + lookback, lookback, n_features=N_FEATURES),
        lookback=lookback,
        batch_size=batch_size,
        device=device,
    )
    picked = torch.arange(batch_size, device=device)
    if compiled:
        net.compile(mode="reduce-overhead", dynamic=False)

    def step():
        window_NTF, y_N, weight_N = loader.batch(picked)
        with torch.autocast(device.type, torch.bfloat16):
            loss = module.loss(module.net(window_NTF), y_N, weight_N)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    flops = 0
    if not compiled:
        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    step_s, load_s = seconds(step, device), seconds(lambda: loader.batch(picked), device)
    share = f"{flops / limit / step_s:6.1%}" if flops else "     -"
    kind = "compiled" if compiled else "plain"
    return (
        f"d {width:<4} T {lookback:<3} B {batch_size:<5} {kind:<9} {1e3 * step_s:8.3f} ms/step "
        f"{batch_size / step_s:12,.0f} windows/s  loading {load_s / step_s:5.1%}  of the arithmetic limit {share}"
    )


def stack_row(accelerator, width, lookback, batch_size, n_nets, n_rows):
    """Nets as one stack against one of them alone, as nets an hour."""
    train, valid = (make_samples(n, lookback, seed, N_FEATURES) for n, seed in ((n_rows, 0), (n_rows // 4, 1)))
    settings = TrainerSettings(accelerator=accelerator, max_epochs=2)
    net = partial(TransformerEncoder, d_model=width, n_heads=2, n_layers=1)
    base = SequenceModel(net, LitClassifier, settings, lookback, batch_size)
    start = time.perf_counter()
    base.fit(train, valid)
    alone_s = time.perf_counter() - start
    models = [replace(base, seed=seed) for seed in range(n_nets)]
    start = time.perf_counter()
    assert base.fit_together(models, train, valid, workdir=None, stacked=True) is not None
    stacked_s = time.perf_counter() - start
    return (
        f"d {width:<4} T {lookback:<3} B {batch_size:<5} {n_nets:>3} nets  {3600 / alone_s:10,.0f} an hour one by one "
        f"{3600 * n_nets / stacked_s:10,.0f} stacked  {n_nets * alone_s / stacked_s:5.1f}x"
    )


def test_speed_of_training_on_this_gpu(capsys):
    device = torch.device("cuda")
    limit = peak_flops(device, 8192)
    rows = [f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, bf16 product {limit / 1e12:.0f} TFLOP/s"]
    for width in (64, 128):
        rows += [step_row(device, width, 64, 1024, limit, compiled=compiled) for compiled in (False, True)]
    stack_row("gpu", 32, 32, 256, 2, 2_000)  # warms up
    rows += [stack_row("gpu", 32, 32, 256, n_nets, 20_000) for n_nets in (8, 32)]
    with capsys.disabled():
        print("\n" + "\n".join(rows))  # noqa: T201 - the table is what this test is for
    assert all(rows)
