"""The sequence model on a CUDA device. Needs torch, pytorch_lightning, numpy and numba alone."""

import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.losses import focal_loss, supcon_loss
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
LOOKBACK = 16


def make_split(n_rows=3000):
    """Labels that follow the last two values of feature 0, with noise."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_rows, 8)).astype(np.float32)
    table = FeatureTable(
        symbol=np.zeros(n_rows, np.int32),
        time=np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "h"),
        segment=np.zeros(n_rows, np.int32),
        values=values,
        names=tuple(f"f{k}" for k in range(8)),
        symbols=("AAA",),
    )
    rows = np.arange(LOOKBACK - 1, n_rows)
    score = values[rows, 0] + values[rows - 1, 0] + 0.3 * rng.normal(size=len(rows))
    y = (score > 0).astype(np.int64)
    samples = Samples(table, rows, y, np.ones(len(rows)), rows - LOOKBACK + 1, rows, score)
    cut = int(0.75 * len(samples))
    return samples.take(np.arange(cut)), samples.take(np.arange(cut, len(samples)))


def make_model(workdir=None, module=LitClassifier, precision="bf16-mixed", **trainer):
    settings = {"accelerator": "gpu", "precision": precision, "max_epochs": 5} | trainer
    return SequenceModel(
        net=partial(TransformerEncoder, d_model=32, n_heads=4, n_layers=2),
        module=partial(module, lr=3e-3),
        trainer=TrainerSettings(**settings),
        lookback=LOOKBACK,
        batch_size=128,
        seed=1,
        workdir=workdir,
    )


class StopsAt(LitClassifier):
    """Ctrl-C in mid-epoch; it passes as the class it stands for, so that the fingerprint is the same."""

    __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == 25:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_it_learns_on_the_device_and_answers_the_same_on_the_cpu(precision):
    train, valid = make_split()
    fitted = make_model(precision=precision).fit(train, valid)
    p_NC = fitted.predict_proba(valid.table, valid.rows)
    assert (p_NC.argmax(axis=1) == valid.y).mean() > 0.85
    assert {p.device.type for p in fitted.net_.parameters()} == {"cpu"}
    on_cpu = replace(fitted, trainer=TrainerSettings())
    object.__setattr__(on_cpu, "net_", fitted.net_)
    np.testing.assert_allclose(on_cpu.predict_proba(valid.table, valid.rows), p_NC, rtol=0, atol=1e-4)


def test_ctrl_c_resumes_to_the_same_weights(tmp_path):
    data = make_split()
    settings = {"deterministic": True, "precision": "32-true"}
    unbroken = make_model(**settings).fit(*data)
    with pytest.raises(KeyboardInterrupt):
        make_model(tmp_path, module=StopsAt, **settings).fit(*data)
    resumed = make_model(tmp_path, **settings).fit(*data)
    for name, tensor in unbroken.net_.state_dict().items():
        torch.testing.assert_close(resumed.net_.state_dict()[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize(
    "recipe", [{}, {"bar_dropout": 0.2, "feature_dropout": 0.1, "ema": 0.9}], ids=["bare", "recipe"]
)
def test_a_recorded_fit_ends_with_the_weights_of_a_plain_one(precision, recipe):
    """Dropout included: a replay draws on from where the generator stands. An epoch's last batch is a plain step."""
    data = make_split()
    module = partial(LitClassifier, lr=3e-3, **recipe)
    plain, graph = (
        replace(make_model(precision=precision, max_epochs=2, step=step), module=module).fit(*data)
        for step in ("plain", "graph")
    )
    before = make_model(precision=precision, max_epochs=1).fit(*data).net_.state_dict()
    for name, tensor in plain.net_.state_dict().items():
        torch.testing.assert_close(graph.net_.state_dict()[name], tensor, rtol=0, atol=1e-4, msg=name)
    assert any((before[name] - tensor).abs().max() > 1e-2 for name, tensor in plain.net_.state_dict().items())


def test_streamed_batches_are_the_resident_ones():
    train, _ = make_split()
    settings = {"lookback": LOOKBACK, "batch_size": 128, "shuffle": True, "device": "cuda"}
    streamed, resident = (WindowLoader.from_samples(train, stream=stream, **settings) for stream in (True, False))
    n = 0
    for theirs, ours in zip(streamed, resident, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
        n += len(ours[1])
    assert n == len(train)


def test_losses_under_autocast_are_float32_and_finite():
    gen = torch.Generator("cuda").manual_seed(0)
    z_ND = torch.randn(256, 64, generator=gen, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    y_N = torch.arange(256, device="cuda") % 4
    with torch.autocast("cuda", dtype=torch.bfloat16):
        contrastive = supcon_loss(z_ND, y_N, temperature=0.05)
        focal = focal_loss(z_ND[:, :4], y_N, gamma=2.0)
    (contrastive + focal).backward()
    assert contrastive.dtype == focal.dtype == torch.float32
    cpu_ND = z_ND.detach().float().cpu()
    torch.testing.assert_close(contrastive.cpu(), supcon_loss(cpu_ND, y_N.cpu(), temperature=0.05))
    torch.testing.assert_close(focal.cpu(), focal_loss(cpu_ND[:, :4], y_N.cpu(), gamma=2.0))
    assert torch.isfinite(z_ND.grad).all()
