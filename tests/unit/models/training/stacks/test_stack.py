import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import LOOKBACK, make_model, make_samples, split
from tradsys.core.errors import TrainingError
from tradsys.models.ensembles.compose import SeedAverage
from tradsys.models.nets.cross_asset import CrossAsset
from tradsys.models.nets.resnet import ResNet
from tradsys.models.nets.tcn import TemporalConvNet
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.nets.two_scales import TwoScales
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.stacks import stack
from tradsys.models.training.trainer import TrainerSettings

RECIPE = {"ema": 0.9, "feature_dropout": 0.2, "bar_dropout": 0.3, "mixup": 0.4, "label_smoothing": 0.1}
NETS = {
    "transformer": partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=2, dropout=0.2, ffn_mult=2),
    "rotary": partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, positions="rotary", pooling="mean"),
    "patches": partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.2, patch=3),
    "two_scales": partial(TwoScales, fine=3, coarse=2, d_model=8, n_heads=2, dropout=0.2),
    "cross_asset": partial(CrossAsset, places=1, values=2, d_model=8, n_heads=2, dropout=0.2),
    "tcn": partial(TemporalConvNet, width=8, dropout=0.2),
    "resnet": partial(ResNet, width=4, dropout=0.2),
}


@pytest.fixture(scope="module")
def data():
    return split(make_samples(n_rows=210))


def together(models, data, workdir=None):
    if workdir:
        models = [replace(model, workdir=workdir / str(k)) for k, model in enumerate(models)]
    done = models[0].fit_together(models, *data, workdir=workdir and workdir / "stack", stacked=True)
    assert done is not None
    return done


def assert_same(left, right, atol=1e-5):
    for a, b in zip(left, right, strict=True):
        assert (a.result_.best_epoch, a.result_.epochs) == (b.result_.best_epoch, b.result_.epochs)
        np.testing.assert_allclose(a.result_.scores, b.result_.scores, rtol=0, atol=atol)
        for (name, p), q in zip(moved(a), moved(b), strict=True):
            # AdamW makes a whole step of the rounding of a gradient that is almost nought
            torch.testing.assert_close(p, q[1], rtol=0, atol=5 * atol, msg=name)


def moved(model):
    """Name and value of each weight but a key's bias, which shifts all scores of a row alike: its gradient is noise."""
    for name, p in model.net_.named_parameters():
        parts = p.detach().chunk(3)[::2] if name.endswith("qkv.bias") else [p.detach()]
        yield from ((name, part) for part in parts)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("wide", [False, True])
def test_each_net_of_a_stack_is_the_net_trained_alone(data, net, wide):
    """Own seeds, learning rates and weight decays, dropout on, a partial last batch."""
    base = replace(make_model(max_epochs=2), net=net, wide=wide)
    models = [
        replace(base, seed=seed, module=partial(LitClassifier, lr=lr, weight_decay=decay))
        for seed, lr, decay in ((3, 0.01, 0.01), (4, 0.003, 0.1), (9, 0.01, 0.0))
    ]
    before = torch.get_rng_state()
    stacked = together(models, data)
    assert torch.equal(before, torch.get_rng_state())
    alone = [model.fit(*data) for model in models]
    assert_same(stacked, alone)
    for one, other in zip(stacked, alone, strict=True):
        p_NC, q_NC = (model.predict_proba(data[1].table, data[1].rows) for model in (one, other))
        np.testing.assert_allclose(p_NC, q_NC, rtol=0, atol=1e-5)


def test_the_whole_recipe_and_balanced_classes_hold_in_a_stack(data):
    train, valid = data
    train = train.take(np.flatnonzero((train.y == 1) | (train.rows % 3 == 0)))
    module = partial(LitClassifier, lr=0.01, class_weight="balanced", gamma=1.0, **RECIPE)
    base = replace(make_model(max_epochs=3, smooth_epochs=2), module=module)
    models = [replace(base, seed=seed) for seed in (1, 2)]
    assert_same(together(models, (train, valid)), [model.fit(train, valid) for model in models])


def test_nets_stop_early_one_by_one_and_leave_the_stack():
    data = split(make_samples(edge=0.0))
    settings = TrainerSettings(max_epochs=12, patience=2)
    models = [replace(make_model(), trainer=settings, seed=seed) for seed in range(4)]
    alone = [model.fit(*data) for model in models]
    assert len({one.result_.epochs for one in alone}) > 1
    assert_same(together(models, data), alone)


@pytest.mark.parametrize("step", [3, 9])  # in the first epoch; at the end of a later one, when some have stopped
def test_a_stopped_stack_goes_on_to_the_same_bits(tmp_path, monkeypatch, step):
    data = split(make_samples(edge=0.0))
    settings = TrainerSettings(max_epochs=6, patience=1)
    module = partial(LitClassifier, lr=0.01, **RECIPE)
    models = [replace(make_model(), trainer=settings, module=module, seed=seed) for seed in range(3)]
    unbroken = together(models, data)
    real = stack.Stack.take_step

    def interrupted(self):
        real(self)
        if self.nets[0].step == step:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(stack.Stack, "take_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        together(models, data, tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / "stack" / "last.ckpt").exists()
    with pytest.raises(TrainingError, match=r"last\.ckpt belongs to fingerprint"):
        together([replace(model, batch_size=32) for model in models], data, tmp_path)
    monkeypatch.setattr(stack.Stack, "take_step", real)
    resumed = together(models, data, tmp_path)
    assert_same(resumed, unbroken, atol=0)
    monkeypatch.setattr(stack.Stack, "take_step", None)  # a finished one is loaded
    assert_same(together(models, data, tmp_path), unbroken, atol=0)
    (tmp_path / "1" / "best.ckpt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"best\.ckpt is not the file"):
        together(models, data, tmp_path)


def test_a_loss_that_is_not_finite_names_net_and_step(data):
    train, valid = data
    bad = train.on(train.table.with_values(np.where(train.table.values > 2, np.nan, train.table.values)))
    models = [replace(make_model(), seed=seed) for seed in (1, 2)]
    with pytest.raises(TrainingError, match=r"net \d of the stack: loss is nan at step \d"):
        together(models, (bad, valid))


class Own(LitClassifier):
    """A module of somebody's own, whose loss a stack does not know."""


class Drawing(TransformerEncoder):
    """Draws from torch's generator itself."""

    def forward(self, window_NTF):
        return super().forward(torch.nn.functional.dropout(window_NTF, 0.1, self.training))


def test_a_net_that_draws_by_itself_is_fitted_alone(data):
    base = replace(make_model(max_epochs=1), net=partial(Drawing, d_model=8, n_heads=2, n_layers=1))
    average = SeedAverage(base, 2, stacked=True).fit(*data)
    alone = base.fit_together([base, replace(base, seed=8)], *data, workdir=None, stacked=True)
    assert alone is None
    assert len(average.members_) == 2


def test_what_cannot_be_stacked_is_fitted_one_by_one(data):
    base = make_model()
    for other in (
        replace(base, lookback=LOOKBACK - 1),
        replace(base, batch_size=32),
        replace(base, net=partial(TransformerEncoder, d_model=8, n_heads=4, n_layers=1)),  # weights of the same shapes
        replace(base, module=partial(Own, lr=0.01)),
        replace(base, trainer=replace(base.trainer, precision="bf16-mixed")),
        replace(base, trainer=replace(base.trainer, loggers=("csv",))),
    ):
        assert base.fit_together([base, other], *data, workdir=None, stacked=True) is None
    large = replace(base, net=partial(TransformerEncoder, d_model=64), batch_size=1024)
    assert base.fit_together([large, replace(large, seed=8)], *data, workdir=None, stacked=None) is None


def test_an_average_of_seeds_uses_a_stack_where_it_gains(tmp_path, data, monkeypatch):
    sizes, real = [], stack.Stack.take_step
    monkeypatch.setattr(stack.Stack, "take_step", lambda self: (sizes.append(len(self.nets)), real(self)))
    short = SeedAverage(make_model(max_epochs=1), 3, seed=5, workdir=tmp_path / "short")
    short.fit(*data)
    assert sizes == []
    average = SeedAverage(make_model(max_epochs=200), 3, seed=5, workdir=tmp_path)
    stacked, alone = average.fit(*data), replace(average, stacked=False).fit(*data)
    assert max(sizes) == 3
    assert (tmp_path / "2" / "finished.json").exists()
    assert not (tmp_path / "2" / "last.ckpt").exists()
    valid = data[1]
    p_NC = stacked.predict_proba(valid.table, valid.rows)
    np.testing.assert_allclose(p_NC, alone.predict_proba(valid.table, valid.rows), rtol=0, atol=1e-5)
