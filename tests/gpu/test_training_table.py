"""Speed of training on the GPU at hand, printed as a table by `make gpu`; what it checks is that every row ran.

Needs torch, pytorch_lightning, numpy, numba, onnx and pytest alone.
"""

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_samples import make_samples
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.capture import Captured
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


def step_row(device, width, lookback, batch_size, limit, kind):
    """One net in a bare loop: time of a step, windows a second, shares of loading, device and arithmetic limit."""
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
    if kind == "compiled":
        net.compile(mode="reduce-overhead", dynamic=False)

    def plain(batch):
        window_NTF, y_N, weight_N = batch
        with torch.autocast(device.type, torch.bfloat16):
            loss = module.loss(module.net(window_NTF), y_N, weight_N)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        return (loss.detach(),)

    flops = 0
    if kind != "compiled":
        with FlopCounterMode(display=False) as counter:
            plain(loader.batch(picked))
        flops = counter.get_total_flops()
    step = Captured(plain, optimizer, loader.batch(picked)) if kind == "graph" else plain
    step_s = seconds(lambda: step(loader.batch(picked)), device)
    load_s = seconds(lambda: loader.batch(picked), device)
    share = f"{flops / limit / step_s:6.1%}" if flops else "     -"
    return (
        f"d {width:<4} T {lookback:<3} B {batch_size:<5} {kind:<9} {1e3 * step_s:8.3f} ms/step "
        f"{batch_size / step_s:12,.0f} windows/s  busy {busy(lambda: step(loader.batch(picked)), device):4.0%}  "
        f"loading {load_s / step_s:5.1%}  of the arithmetic limit {share}"
    )


def busy(task, device, n=20):
    """Share of the time of n calls in which the device ran a kernel."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        wait(device)
        start = time.perf_counter()
        for _ in range(n):
            task()
        wait(device)
        took = time.perf_counter() - start
    kernels = (event.self_device_time_total for event in seen.key_averages())
    return min(1.0, sum(kernels) / 1e6 / took)


def loop_row(accelerator, width, lookback, batch_size, step):
    """A step within `SequenceModel.fit`, everything that an epoch needs included: epochs 2 and 3 of a fit of three."""
    n_rows = 60 * batch_size
    train, valid = (make_samples(n, lookback, seed, N_FEATURES) for n, seed in ((n_rows, 0), (batch_size, 1)))
    ends = []
    settings = TrainerSettings(accelerator=accelerator, precision="bf16-mixed", max_epochs=3, step=step)
    net = partial(TransformerEncoder, d_model=width, n_heads=4, n_layers=2)
    model = SequenceModel(net, LitClassifier, settings, lookback, batch_size)
    replace(model, watch=lambda epoch, score: ends.append(time.perf_counter())).fit(train, valid)
    step_s = (ends[2] - ends[0]) / 2 / -(-len(train) // batch_size)
    return f"d {width:<4} T {lookback:<3} B {batch_size:<5} {f'fit, {step}':<12} {1e3 * step_s:5.3f} ms/step"


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
        rows += [step_row(device, width, 64, 1024, limit, kind) for kind in ("plain", "compiled", "graph")]
        rows += [loop_row("gpu", width, 64, 1024, step) for step in ("plain", "graph")]
    rows += [loop_row("gpu", 8, 32, 32, step) for step in ("plain", "graph")]
    stack_row("gpu", 32, 32, 256, 2, 2_000)  # warms up
    rows += [stack_row("gpu", 32, 32, 256, n_nets, 20_000) for n_nets in (8, 32)]
    with capsys.disabled():
        print("\n" + "\n".join(rows))  # noqa: T201 - the table is what this test is for
    assert all(rows)
