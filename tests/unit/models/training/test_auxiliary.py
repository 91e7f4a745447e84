"""Auxiliary targets: what they are, that they reach training alone, and that a bundle has class scores only."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import LOOKBACK, make_model, make_samples, split, weights
from tests.unit.models.training.stacks.test_stack import assert_same
from tradsys.core.errors import TrainingError
from tradsys.models.nets.auxiliary import Auxiliary
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.objective import target_error
from tradsys.models.training.recipe import QUANTILES, Prepared, auxiliary_targets
from tradsys.models.transforms import RobustScaler


@pytest.fixture(scope="module")
def data():
    samples = make_samples()
    rng = np.random.default_rng(3)
    ranges = np.exp(0.5 * samples.table.values[samples.rows, 1] + 0.1 * rng.normal(size=len(samples)) - 4)
    met = (rng.random(len(samples)) < 0.4).astype(np.float32)
    ends = samples.rows + rng.integers(1, 9, len(samples))
    return split(replace(samples, realised_range=ranges, mean_met=met, end=ends))


def model(auxiliary=None, seed=3, **module):
    auxiliary = {"range": 0.5, "time": 0.1} if auxiliary is None else auxiliary
    made = partial(LitClassifier, lr=0.01, auxiliary=auxiliary, **module)
    return replace(make_model(max_epochs=2), module=made, seed=seed)


def test_targets_are_logs_of_range_and_time_in_their_own_deviations(data):
    train, _ = data
    found_NA = auxiliary_targets(train, ["range", "time", "mean", "return_q10"])
    expected = [np.log(train.realised_range), np.log(train.end - train.rows), train.mean_met.astype(float), train.ret]
    for k, value_N in enumerate(expected):
        np.testing.assert_allclose(found_NA[:, k], (value_N - value_N.mean()) / value_N.std(), atol=1e-12)


def test_the_loss_is_the_class_loss_and_the_weighted_errors():
    torch.manual_seed(0)
    module = LitClassifier(
        make_model().built_net(n_features=3, n_classes=2), gamma=0.0, auxiliary={"range": 0.5, "time": 2}
    )
    out_NA, target_NA, weight_N = torch.randn(6, 4), torch.randn(6, 2), torch.rand(6)
    y_N = torch.tensor([0, 1, 0, 1, 1, 0])
    found = module.prepared_loss(out_NA, Prepared(out_NA, y_N, weight_N, None, 1.0, target_NA))
    gap_NA = (out_NA[:, 2:] - target_NA).abs()
    error_NA = torch.where(gap_NA < 1, 0.5 * gap_NA**2, gap_NA - 0.5)
    nll_N = -out_NA[:, :2].log_softmax(dim=1)[torch.arange(6), y_N]
    expected = (weight_N * (nll_N + 0.5 * error_NA[:, 0] + 2 * error_NA[:, 1])).sum() / weight_N.sum()
    torch.testing.assert_close(found, expected)


def test_a_quantile_is_learnt_by_the_pinball_loss():
    """The constant that the loss likes best is the quantile; a batch's loss is that of plain numbers."""
    target_N = torch.from_numpy(np.random.default_rng(0).normal(size=2001)).float()
    for share in QUANTILES.values():
        guesses = torch.linspace(-2, 2, 401)
        losses = [float(target_error(torch.full_like(target_N, float(g)), target_N, share).mean()) for g in guesses]
        assert abs(float(guesses[int(np.argmin(losses))]) - float(target_N.quantile(share))) < 0.011
        as_tensor = target_error(target_N * 0, target_N, torch.tensor(share))
        torch.testing.assert_close(as_tensor, target_error(target_N * 0, target_N, share))
    smooth_N = target_error(target_N * 0, target_N, 0.0)
    torch.testing.assert_close(target_error(target_N * 0, target_N, torch.tensor(0.0)), smooth_N)
    module = LitClassifier(make_model().built_net(n_features=3, n_classes=2), auxiliary={"range": 1, "return_q90": 1})
    assert module.objective.quantiles == (0.0, 0.9)


def test_the_encoder_learns_the_range_and_the_net_that_is_kept_has_class_scores_alone(data, tmp_path):
    train, valid = data
    seen = {}

    class Watched(LitClassifier):
        def training_step(self, batch):
            loss = super().training_step(batch)
            with torch.no_grad():
                guess_NA = self.net(batch[0])[:, 2:]
                seen.setdefault("error", []).append(float((guess_NA[:, 0] - batch[3][:, 0]).square().mean()))
            return loss

    settings = {"lr": 0.01, "auxiliary": {"range": 1.0}}
    fitted = replace(model(), module=partial(Watched, **settings), trainer=replace(model().trainer, max_epochs=12)).fit(
        train, valid
    )
    assert np.mean(seen["error"][-5:]) < 0.6 * np.mean(seen["error"][:3])
    assert not isinstance(fitted.net_, Auxiliary)
    assert fitted.net_(torch.zeros(2, LOOKBACK, 3)).shape == (2, 2)
    assert not any("targets" in name for name in weights(fitted))
    scaler = RobustScaler(clip=3.0).fit(train.table, train.rows)
    rows = valid.rows[:40]
    path = tmp_path / "model.onnx"
    assert export_onnx(path, scaler=scaler, model=fitted, calibrator=None, table=train.table, rows=rows) < 1e-5
    assert OnnxModel.load(path).classes == 2


def test_targets_of_validation_and_test_reach_nothing(data):
    """Other ranges outside training change no number; other ranges in training, the negative control, do."""
    train, valid = data
    wrong = replace(valid, realised_range=valid.realised_range[::-1] * 7)
    first, second = model().fit(train, valid), model().fit(train, wrong)
    rows = valid.rows
    np.testing.assert_array_equal(first.predict_proba(valid.table, rows), second.predict_proba(wrong.table, rows))
    third = model().fit(replace(train, realised_range=train.realised_range[::-1]), valid)
    assert np.abs(first.predict_proba(valid.table, rows) - third.predict_proba(valid.table, rows)).max() > 1e-4


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_stack_with_targets_is_each_net_alone(data, wide, mixup):
    targets = {"range": 0.5, "return_q90": 0.3}  # a quantile beside a mean
    models = [replace(model(targets, seed=seed, mixup=mixup), wide=wide) for seed in (1, 2)]
    done = models[0].fit_together(models, *data, workdir=None, stacked=True)
    assert_same(done, [one.fit(*data) for one in models])


def test_without_targets_a_fit_is_what_it_was(data):
    plain = replace(make_model(max_epochs=2), module=partial(LitClassifier, lr=0.01))
    assert model(auxiliary={}).fingerprint(*data) == plain.fingerprint(*data)
    assert model().fingerprint(*data) != plain.fingerprint(*data)


def test_what_cannot_be_learnt_is_one_line_before_any_fit(data):
    train, valid = data
    with pytest.raises(ValueError, match="no auxiliary target 'range_48'; targets have the label's own horizon"):
        model(auxiliary={"range_48": 0.1})
    with pytest.raises(ValueError, match="weights are above 0"):
        model(auxiliary={"range": 0.0})
    with pytest.raises(TrainingError, match="'range' needs highs and lows"):
        model().fit(replace(train, realised_range=None), valid)
    with pytest.raises(TrainingError, match="'mean' needs highs and lows"):
        model({"mean": 0.1}).fit(replace(train, mean_met=None), valid)
    with pytest.raises(TrainingError, match="'time' is the same for all"):
        model().fit(replace(train, end=train.rows + 4), valid)
    with pytest.raises(TrainingError, match="'range' is missing for 1 of"):
        model().fit(replace(train, realised_range=np.where(np.arange(len(train)) == 5, np.nan, 1.0)), valid)
