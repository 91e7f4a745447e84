import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tests.unit.models.test_sequence import LOOKBACK, assert_same_weights, make_samples, split, weights
from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.models.calibrators import Isotonic, Temperature
from tradsys.models.ensembles.compose import Calibrated, Scaled
from tradsys.models.ensembles.nested_copies import seeded
from tradsys.models.linear import LogisticRegression
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.onnx_export import export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.probe import LinearProbe
from tradsys.models.supcon import SupConModel
from tradsys.models.training.augment import Jitter, TimeMask, Views
from tradsys.models.training.lit_supcon import LitSupCon
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import RobustScaler
from tradsys.research.pipeline.cross_validation import n_parameters
from tradsys.samples.windows import gather


def make_model(workdir=None, module=LitSupCon, probe=None, batch_size=64, **settings):
    net = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.1, ffn_mult=2)
    views = Views([Jitter(0.05), TimeMask(0.2)])
    return SupConModel(
        net=net,
        module=partial(module, **({"views": views, "lr": 0.01, "projection_dim": 6} | settings)),
        trainer=TrainerSettings(max_epochs=5, patience=5),
        lookback=LOOKBACK,
        batch_size=batch_size,
        seed=3,
        workdir=workdir,
        probe=probe or LogisticRegression(),
    )


@pytest.fixture(scope="module")
def data():
    return split(make_samples(900))


@pytest.fixture(scope="module")
def unbroken(data):
    return make_model().fit(*data)


class StopsAt(LitSupCon):
    """Ctrl-C as the terminal sends it, in mid-epoch."""

    __module__, __qualname__ = LitSupCon.__module__, LitSupCon.__qualname__  # same fingerprint

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == 15:
            os.kill(os.getpid(), signal.SIGINT)


def test_it_learns_what_is_there(data, unbroken):
    _, valid = data
    assert isinstance(unbroken, Model)
    p_NC = unbroken.predict_proba(valid.table, valid.rows)
    assert ((p_NC[:, 1] > 0.5) == valid.y).mean() > 0.75
    np.testing.assert_allclose(p_NC.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert p_NC.dtype == np.float64
    assert unbroken.predict_proba(valid.table, valid.rows[:0]).shape == (0, 2)


def test_probabilities_are_the_probes_answer_to_the_frozen_embedding(data, unbroken):
    _, valid = data
    with torch.no_grad():
        expected_ND = unbroken.net_.embed(torch.from_numpy(gather(valid.table.values, valid.rows, LOOKBACK))).numpy()
    embedding_ND = unbroken.embed(valid.table, valid.rows)
    assert (embedding_ND.shape, embedding_ND.dtype) == ((len(valid), 8), np.float32)
    np.testing.assert_allclose(embedding_ND, expected_ND, rtol=0, atol=1e-5)
    logit_N = expected_ND.astype(np.float64) @ unbroken.probe_.coef_[0] + unbroken.probe_.intercept_[0]
    np.testing.assert_allclose(
        unbroken.predict_proba(valid.table, valid.rows)[:, 1], 1 / (1 + np.exp(-logit_N)), rtol=0, atol=1e-5
    )


def test_the_probe_is_fitted_on_embeddings_of_the_training_rows(data, unbroken):
    train, valid = data
    again = LogisticRegression().fit(unbroken._encoded(train), unbroken._encoded(valid))
    np.testing.assert_array_equal(again.coef_, unbroken.probe_.coef_)


def test_every_window_is_encoded_once_for_the_probe(data, monkeypatch):
    encoded = []
    real = SupConModel.embed
    monkeypatch.setattr(SupConModel, "embed", lambda self, t, rows: encoded.append(len(rows)) or real(self, t, rows))
    make_model().fit(*data)
    assert encoded == [len(part) for part in data]


def test_the_encoder_alone_is_left_and_history_tells_every_epoch(unbroken):
    names = {name.split(".")[0] for name, _ in unbroken.net_.named_parameters()}
    assert names == {"position_TD", "project", "blocks", "norm"}, "no projection and no head"
    assert n_parameters(unbroken) == sum(p.numel() for p in unbroken.net_.parameters())
    assert [row["epoch"] for row in unbroken.history_] == list(range(5))
    losses = [row["valid_logloss"] for row in unbroken.history_]
    assert min(losses) == unbroken.result_.score == losses[unbroken.result_.best_epoch]
    assert losses[-1] < unbroken.history_[-1]["base_rate_logloss"]


def test_a_seed_repeats_the_fit_to_the_bit_and_another_does_not(data, unbroken):
    assert_same_weights(weights(unbroken), weights(make_model().fit(*data)))
    other = seeded(make_model(), 4).fit(*data)
    assert not torch.equal(weights(other)["project.weight"], weights(unbroken)["project.weight"])


def test_ctrl_c_in_mid_epoch_resumes_to_the_same_weights_and_history(tmp_path, data, unbroken):
    with pytest.raises(KeyboardInterrupt):
        make_model(tmp_path, module=StopsAt).fit(*data)
    resumed = make_model(tmp_path).fit(*data)
    assert_same_weights(weights(unbroken), weights(resumed))
    assert resumed.history_ == unbroken.history_
    loaded = make_model(tmp_path).fit(*data)
    assert loaded.history_ == unbroken.history_, "a finished fit is loaded with what was watched"
    assert loaded.workdir == tmp_path
    other = replace(make_model(tmp_path), probe=LinearProbe()).fit(*data)
    assert_same_weights(weights(unbroken), weights(other))  # another probe reads the same encoder
    with pytest.raises(TrainingError, match="fingerprint"):
        make_model(tmp_path, temperature=0.5).fit(*data)


# the exporter takes seconds
@pytest.mark.parametrize(("probe", "calibrator"), [(LogisticRegression(), Temperature()), (LinearProbe(), Isotonic())])
def test_one_graph_from_raw_windows_to_calibrated_probability(tmp_path, data, probe, calibrator):
    _, valid = data
    model = Calibrated(Scaled(RobustScaler(), make_model(probe=probe)), calibrator).fit(*data)
    inner = model.model_
    gap = export_onnx(
        tmp_path / "model.onnx",
        scaler=inner.scaler_,
        model=inner.model_,
        calibrator=model.calibrator_,
        table=valid.table,
        rows=valid.rows,
    )
    assert gap <= 1e-5
    window_NTF = gather(valid.table.values, valid.rows[:70], LOOKBACK)
    score_NC, probability_NC = OnnxModel.load(tmp_path / "model.onnx").run(window_NTF)
    np.testing.assert_allclose(score_NC, model.score(valid.table, valid.rows[:70]), rtol=0, atol=1e-5)
    expected_NC = model.calibrator_.apply(score_NC)
    np.testing.assert_allclose(probability_NC, expected_NC, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 3}, r"supcon: batch_size=3 with 2 classes; .*4 or more"),
        ({"temperature": 0.0}, "supcon: temperature=0.0"),
    ],
)
def test_bad_settings_are_one_clear_error(data, settings, words):
    with pytest.raises(ValueError, match=words):
        make_model(**settings).fit(*data)


def test_one_class_and_asking_before_fit_are_refused(data):
    train, valid = data
    with pytest.raises(TrainingError, match="are class"):
        make_model().fit(replace(train, y=np.zeros_like(train.y)), valid)
    with pytest.raises(TrainingError, match="fit"):
        make_model().predict_proba(valid.table, valid.rows)
