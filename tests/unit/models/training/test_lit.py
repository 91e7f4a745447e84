from itertools import pairwise

import pytest
import pytorch_lightning as L
import torch
import torch.nn.functional as F
from torch import nn

from tradsys.core.errors import TrainingError
from tradsys.models.losses import focal_loss
from tradsys.models.training.lit import LitClassifier, balanced, warmup_cosine
from tradsys.models.training.surroundings import quiet
from tradsys.samples.loader import WindowLoader


class Flat(nn.Module):
    """The window's last row through one linear layer."""

    def __init__(self, n_features=3, n_classes=2):
        super().__init__()
        self.n_classes = n_classes
        self.norm = nn.LayerNorm(n_features)
        self.line = nn.Linear(n_features, n_classes)

    def forward(self, window_NTF):
        return self.line(self.norm(window_NTF[:, -1]))


class Seen(L.Callback):
    """Learning rates and metrics as Lightning saw them."""

    def __init__(self):
        self.lr, self.metrics = [], {}

    def on_train_batch_start(self, trainer, *_):
        self.lr.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer, *_):
        self.metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}


def make_loader(n=64, bad_row=None, shuffle=False, n_classes=2):
    gen = torch.Generator().manual_seed(1)
    table_RF = torch.randn(n, 3, generator=gen)
    y_N = torch.randint(n_classes, (n - 1,), generator=gen)
    if bad_row is not None:
        table_RF[bad_row] = float("nan")
    weight_N = torch.rand(n - 1, generator=gen) + 0.1
    return WindowLoader(table_RF, torch.arange(1, n), y_N, weight_N, lookback=2, batch_size=8, shuffle=shuffle, seed=0)


def fit(module, loader, epochs=1, callbacks=()):
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    with quiet():
        trainer.fit(module, loader, loader)
    return trainer


def test_loss_is_weighted_focal_and_smoothing_is_torchs_at_gamma_zero():
    gen = torch.Generator().manual_seed(2)
    logits_NC, y_N = torch.randn(9, 3, generator=gen), torch.randint(3, (9,), generator=gen)
    w_N = torch.rand(9, generator=gen)
    plain = LitClassifier(Flat(3, 3), gamma=2.0)
    torch.testing.assert_close(
        plain.loss(logits_NC, y_N, w_N), focal_loss(logits_NC, y_N, gamma=2, sample_weight_N=w_N)
    )
    smooth = LitClassifier(Flat(3, 3), gamma=0.0, label_smoothing=0.1)
    torch.testing.assert_close(
        smooth.loss(logits_NC, y_N, torch.ones(9)), F.cross_entropy(logits_NC, y_N, label_smoothing=0.1)
    )


def test_schedule_warms_up_then_falls_to_zero():
    rates = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert warmup_cosine(0, 10, 0.0) == 1.0


def test_fit_follows_the_schedule_over_all_planned_steps():
    seen, loader = Seen(), make_loader()
    fit(LitClassifier(Flat(), lr=0.01, warmup_fraction=0.25), loader, epochs=2, callbacks=[seen])
    n_steps = 2 * len(loader)
    assert seen.lr == pytest.approx([0.01 * warmup_cosine(k, n_steps, 0.25) for k in range(n_steps)])


def test_decay_spares_biases_and_norms():
    module = LitClassifier(Flat(), weight_decay=0.3)
    trainer = fit(module, make_loader())
    decayed, spared = trainer.optimizers[0].param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 3)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {id(p) for p in spared["params"]} == {
        id(module.net.norm.weight),
        id(module.net.norm.bias),
        id(module.net.line.bias),
    }


def test_validation_logloss_is_the_weighted_one_over_all_batches():
    seen, loader, module = Seen(), make_loader(), LitClassifier(Flat(), lr=0.01)
    fit(module, loader, callbacks=[seen])
    rows = torch.arange(1, 64)
    logits_NC = module.net(torch.stack([loader.table_RF[r - 1 : r + 1] for r in rows])).detach()
    nll_N = F.cross_entropy(logits_NC, loader.y_N, reduction="none")
    expected = float((loader.weight_N * nll_N).sum() / loader.weight_N.sum())
    assert seen.metrics["valid_logloss"] == pytest.approx(expected, rel=1e-5)
    p_N = logits_NC.softmax(1)[:, 1]
    pairs = (p_N[loader.y_N == 1][:, None] > p_N[loader.y_N == 0][None]).float().mean()
    assert seen.metrics["valid_auc"] == pytest.approx(float(pairs), abs=1e-6)
    assert module.weight_C.tolist() == [1.0, 1.0]


def test_a_validation_set_of_one_class_has_no_auc_and_no_warning():
    seen, loader = Seen(), make_loader()
    loader.y_N[:] = 0
    fit(LitClassifier(Flat()), loader, callbacks=[seen])
    assert "valid_auc" not in seen.metrics
    assert seen.metrics["valid_logloss"] > 0


def test_balanced_gives_each_class_the_same_total():
    y_N = torch.tensor([0, 0, 0, 1, 1, 0])
    w_N = torch.tensor([1.0, 2.0, 1.0, 0.5, 0.5, 1.0])
    weight_C = balanced(y_N, w_N, 3)
    totals = [float((w_N * weight_C[y_N])[y_N == c].sum()) for c in (0, 1)]
    assert totals[0] == pytest.approx(totals[1])
    assert weight_C.tolist() == pytest.approx([6 / (3 * 5), 6 / 3, 0.0])
    loader, module = make_loader(), LitClassifier(Flat(), class_weight="balanced")
    fit(module, loader)
    torch.testing.assert_close(module.weight_C, balanced(loader.y_N, loader.weight_N, 2))


def test_a_nan_loss_names_its_step_and_learning_rate():
    # row 30 lies in the windows of rows 30 and 31, the samples 29 and 30 of unshuffled batches of 8: step 3
    module = LitClassifier(Flat(), lr=0.02, warmup_fraction=0.5)
    rate = 0.02 * warmup_cosine(3, 8, 0.5)
    with pytest.raises(TrainingError, match=rf"loss is nan at step 3 of 8, learning rate {rate:.3g} .*lower"):
        fit(module, make_loader(bad_row=30))


def test_a_weight_that_overflows_is_named():
    module = LitClassifier(Flat(), lr=1e-3)
    with torch.no_grad():
        module.net.line.bias[0] = float("-inf")  # cross-entropy of the other class stays finite
    loader = make_loader()
    loader.y_N[:] = 1
    with pytest.raises(TrainingError, match=r"at step \d+ of 8, learning rate"):
        fit(module, loader)


@pytest.mark.parametrize("wrong", [{"class_weight": "auto"}, {"warmup_fraction": 1.0}, {"label_smoothing": -0.1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LitClassifier(Flat(), **wrong)
