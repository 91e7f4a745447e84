from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import (
    StopsAt,
    assert_same_weights,
    make_model,
    make_samples,
    split,
    weights,
)
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.recipe import BatchRecipe, Selection, WeightAverage
from tradsys.models.training.trainer import TrainerSettings

RECIPE = {"ema": 0.9, "bar_dropout": 0.4, "feature_dropout": 0.3, "mixup": 0.4, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def data():
    return split(make_samples())


class Steps(LitClassifier):
    """Keeps the weights after every step."""

    seen: list

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.seen.append([p.detach().clone() for p in self.net.parameters()])


def test_a_fit_keeps_the_moving_average_of_its_weights(data):
    """Against the average worked out by hand from every step; the fit itself is the one without an average."""
    Steps.seen = []
    model = replace(make_model(max_epochs=2), module=partial(Steps, lr=0.01, ema=0.8))
    fitted = model.fit(*data)
    steps, Steps.seen = Steps.seen, []
    last = replace(model, trainer=TrainerSettings(max_epochs=2, keep="last")).fit(*data)
    mean = [w.clone() for w in steps[0]]
    for t, now in enumerate(steps[1:], start=1):
        decay = min(0.8, (1 + t) / (10 + t))
        mean = [decay * m + (1 - decay) * w for m, w in zip(mean, now, strict=True)]
    for kept, own, training in zip(last.net_.parameters(), mean, steps[-1], strict=True):
        torch.testing.assert_close(kept, own, rtol=0, atol=1e-6)
        assert not torch.equal(kept, training)
    valid = data[1]
    p_N = fitted.predict_proba(valid.table, valid.rows)[np.arange(len(valid)), valid.y]
    assert np.average(-np.log(p_N), weights=valid.weight) == pytest.approx(fitted.result_.score, rel=1e-5)


def test_a_fit_with_the_whole_recipe_resumes_to_the_same_weights(tmp_path, data):
    plain = replace(make_model(smooth_epochs=2), module=partial(LitClassifier, lr=0.01, **RECIPE))
    unbroken = plain.fit(*data)
    stopped = replace(plain, workdir=tmp_path, module=partial(StopsAt, lr=0.01, **RECIPE))
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*data)
    resumed = replace(plain, workdir=tmp_path).fit(*data)
    assert resumed.result_ == unbroken.result_
    assert_same_weights(weights(unbroken), weights(resumed))


def test_nothing_is_drawn_where_the_recipe_is_empty():
    batch = (torch.randn(4, 5, 3), torch.tensor([0, 1, 0, 1]), torch.ones(4))
    before = torch.get_rng_state()
    seen = BatchRecipe()(batch)
    assert torch.equal(before, torch.get_rng_state())
    assert seen.window_NTF is batch[0]
    assert seen.other is None


def test_the_decision_bar_is_never_blanked_and_whole_columns_are():
    window_NTF = torch.ones(200, 8, 5)
    generator = torch.Generator().manual_seed(0)
    batch = (window_NTF, torch.zeros(200, dtype=torch.int64), torch.ones(200))
    bars = BatchRecipe(bar_dropout=0.5)(batch, generator).window_NTF
    assert (bars[:, -1] == 1).all()
    assert ((bars == 0).sum(dim=1) == 4).all()
    columns = BatchRecipe(feature_dropout=0.3)(batch, generator).window_NTF
    assert ((columns == 0).all(dim=1) | (columns == 1).all(dim=1)).all()
    assert 0.25 < (columns == 0).float().mean() < 0.35


def test_mixup_mixes_windows_and_losses_by_one_share():
    torch.manual_seed(0)
    window_NTF, y_N, weight_N = torch.randn(6, 4, 3), torch.tensor([0, 1, 1, 0, 1, 0]), torch.rand(6) + 0.5
    seen = BatchRecipe(mixup=0.4)((window_NTF, y_N, weight_N), torch.Generator().manual_seed(1))
    share = float(seen.share)
    assert 0 < share < 1
    # the partner is another row of the batch: what is left after the own share
    partner_NTF = (seen.window_NTF - share * window_NTF) / (1 - share)
    place_N = torch.cdist(partner_NTF.flatten(1), window_NTF.flatten(1)).argmin(dim=1)
    torch.testing.assert_close(partner_NTF, window_NTF[place_N], rtol=0, atol=1e-4)
    assert torch.equal(seen.other[0], y_N[place_N])
    assert torch.equal(seen.other[1], weight_N[place_N])
    net = torch.nn.Linear(1, 1)
    net.n_classes = 2
    module = LitClassifier(net, gamma=1.0)
    logits_NC = torch.randn(6, 2)
    expected = share * module.loss(logits_NC, y_N, weight_N) + (1 - share) * module.loss(logits_NC, *seen.other)
    torch.testing.assert_close(module.prepared_loss(logits_NC, seen), expected)


@pytest.mark.parametrize(
    ("keep", "smooth", "patience", "scores", "best", "stale"),
    [
        ("best", 1, 2, [0.5, 0.7, 0.6], 0, True),
        ("best", 2, 2, [0.5, 0.7, 0.6], 1, False),  # 0.60 and 0.65: epoch 0 alone is no candidate
        ("best", 2, 2, [0.9, 0.7, 0.6, 0.5], 3, False),
        ("best", 3, 1, [0.5, 0.6], None, False),
        ("best", 1, 2, [float("nan"), float("nan")], None, True),
        ("last", 1, 1, [0.5, 0.7, 0.6], 2, False),
        ("last", 1, 1, [0.5, float("nan")], None, False),
    ],
)
def test_which_epoch_is_kept_and_when_a_fit_stops(keep, smooth, patience, scores, best, stale):
    selection = Selection(keep, smooth, patience)
    assert selection.best_epoch(scores) == best
    assert selection.stale(scores) is stale


def test_a_swap_twice_is_none():
    net = torch.nn.Linear(3, 2)
    average = WeightAverage(0.5)
    average.update(net)
    with torch.no_grad():
        net.weight += 1
    before = net.weight.detach().clone()
    average.swap(net)
    assert not torch.equal(before, net.weight)
    average.swap(net)
    assert torch.equal(before, net.weight)


@pytest.mark.parametrize(
    "wrong", [{"keep": "first"}, {"smooth_epochs": 0}, {"smooth_epochs": 9, "max_epochs": 8}, {"smooth_epochs": 1.5}]
)
def test_selection_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=f"trainer:.*{next(iter(wrong))}"):
        TrainerSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"ema": 1.0}, {"bar_dropout": -0.1}, {"feature_dropout": 1}, {"mixup": -1}])
def test_recipe_settings_are_checked(wrong):
    net = torch.nn.Linear(1, 1)
    net.n_classes = 2
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LitClassifier(net, **wrong)
