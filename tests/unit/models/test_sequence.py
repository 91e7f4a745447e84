import json
import logging
import os
import signal
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as L
import torch

from tests.forks import run
from tradsys.core.errors import TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.windows import gather

LOOKBACK = 6


def make_samples(n_rows=400, edge=1.0, seed=0, n_features=3):
    """Labels that follow the sum of the last two values of feature 0, with noise."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_rows, n_features)).astype(np.float32)
    table = FeatureTable(
        symbol=np.zeros(n_rows, np.int32),
        time=np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "h"),
        segment=np.zeros(n_rows, np.int32),
        values=values,
        names=tuple(f"f{k}" for k in range(n_features)),
        symbols=("AAA",),
    )
    rows = np.arange(LOOKBACK - 1, n_rows)
    score = edge * (values[rows, 0] + values[rows - 1, 0]) + 0.3 * rng.normal(size=len(rows))
    return Samples(
        table=table,
        rows=rows,
        y=(score > 0).astype(np.int64),
        weight=rng.uniform(0.5, 1.5, len(rows)),
        start=rows - LOOKBACK + 1,
        end=rows,
        ret=score,
    )


def split(samples):
    cut = int(0.75 * len(samples))
    return samples.take(np.arange(cut)), samples.take(np.arange(cut, len(samples)))


def make_model(workdir=None, module=LitClassifier, **trainer):
    settings = TrainerSettings(**({"max_epochs": 4, "patience": 4} | trainer))
    net = partial(TransformerEncoder, d_model=8, n_heads=2, n_layers=1, dropout=0.1, ffn_mult=2)
    return SequenceModel(
        net=net,
        module=partial(module, lr=0.01),
        trainer=settings,
        lookback=LOOKBACK,
        batch_size=64,
        seed=3,
        workdir=workdir,
    )


def weights(model):
    return {name: tensor.clone() for name, tensor in model.net_.state_dict().items()}


def assert_same_weights(left, right):
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


@pytest.fixture(scope="module")
def data():
    return split(make_samples())


@pytest.fixture(scope="module")
def unbroken(data):
    return make_model().fit(*data)


class StopsAt(LitClassifier):
    """Ctrl-C as the terminal sends it, after so many steps."""

    step = 7
    __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__  # same fingerprint

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class RaisesAt(LitClassifier):
    """A KeyboardInterrupt from the middle of a step."""

    __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__  # same fingerprint

    def training_step(self, batch):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return super().training_step(batch)


def as_plain(model):
    """The same model without the interruption."""
    return replace(model, module=partial(LitClassifier, lr=0.01))


def test_it_learns_what_is_there_and_keeps_the_best_epoch(data, unbroken):
    _, valid = data
    assert isinstance(unbroken, Model)
    p_N = unbroken.predict_proba(valid.table, valid.rows)[:, 1]
    assert ((p_N > 0.5) == valid.y).mean() > 0.8
    logloss = -np.log(np.where(valid.y == 1, p_N, 1 - p_N))
    assert np.average(logloss, weights=valid.weight) == pytest.approx(unbroken.result_.score, rel=1e-5)


def test_probabilities_are_the_softmax_of_the_net_whatever_the_batch(data, unbroken):
    _, valid = data
    rows = valid.rows[:70]  # a whole batch of 64 and a rest
    p_NC = unbroken.predict_proba(valid.table, rows)
    assert p_NC.shape == (70, 2)
    assert p_NC.dtype == np.float64
    np.testing.assert_allclose(p_NC.sum(axis=1), 1, rtol=0, atol=1e-12)
    with torch.no_grad():
        logits_NC = unbroken.net_(torch.from_numpy(gather(valid.table.values, rows, LOOKBACK)))
    np.testing.assert_allclose(p_NC, logits_NC.softmax(1).numpy(), rtol=0, atol=1e-6)
    one_by_one = np.concatenate([unbroken.predict_proba(valid.table, rows[k : k + 1]) for k in range(70)])
    np.testing.assert_allclose(one_by_one, p_NC, rtol=0, atol=1e-6)
    assert unbroken.predict_proba(valid.table, rows[:0]).shape == (0, 2)


def test_the_same_seed_gives_the_same_weights_and_leaves_generators_alone(data, unbroken):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = make_model().fit(*data)
    assert torch.equal(before, torch.get_rng_state())
    assert_same_weights(weights(unbroken), weights(again))
    other = replace(make_model(), seed=4).fit(*data)
    assert not torch.equal(weights(other)["head.weight"], weights(again)["head.weight"])


def test_it_stops_early_and_restores_the_best(tmp_path):
    train, valid = split(make_samples(edge=0.0))
    fitted = make_model(tmp_path, max_epochs=40, patience=2).fit(train, valid)
    result = fitted.result_
    assert result.epochs == result.best_epoch + 3 < 40
    p_N = fitted.predict_proba(valid.table, valid.rows)[:, 1]
    logloss = np.average(-np.log(np.where(valid.y == 1, p_N, 1 - p_N)), weights=valid.weight)
    assert logloss == pytest.approx(result.score, rel=1e-5)


def test_a_finished_fit_is_loaded_without_training(tmp_path, data, unbroken):
    make_model(tmp_path).fit(*data)

    class NeverTrained(LitClassifier):
        __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__

        def training_step(self, batch):
            raise AssertionError("trained again")

    again = make_model(tmp_path, module=NeverTrained).fit(*data)
    assert_same_weights(weights(unbroken), weights(again))
    assert again.result_ == unbroken.result_
    (tmp_path / "finished.json").unlink()  # as if it died between the last epoch and the note of it
    again = make_model(tmp_path, module=NeverTrained).fit(*data)
    assert_same_weights(weights(unbroken), weights(again))
    assert again.result_ == unbroken.result_


@pytest.mark.parametrize("step", [3, 4, 7])  # five steps an epoch: in mid-epoch, at its last step, in the next
def test_ctrl_c_between_steps_resumes_to_the_same_weights(tmp_path, data, unbroken, monkeypatch, step):
    monkeypatch.setattr(StopsAt, "step", step)
    handler = signal.getsignal(signal.SIGINT)
    stopped = make_model(tmp_path, module=StopsAt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*data)
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == step + 1
    assert not (tmp_path / "finished.json").exists()
    resumed = as_plain(stopped).fit(*data)
    assert resumed.result_ == unbroken.result_
    assert_same_weights(weights(unbroken), weights(resumed))


def test_an_interrupt_inside_a_step_leaves_a_checkpoint_to_resume_from(tmp_path, data, unbroken):
    stopped = make_model(tmp_path, module=RaisesAt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*data)
    assert (tmp_path / "last.ckpt").exists()
    assert_same_weights(weights(unbroken), weights(as_plain(stopped).fit(*data)))


def test_the_watch_hears_every_epoch_and_what_it_raises_comes_out_unchanged(tmp_path, data, unbroken):
    heard = []

    def listens(epoch, score):
        heard.append((epoch, score))

    def gives_up(epoch, score):
        listens(epoch, score)
        if epoch == 1:
            raise LookupError("pruned")

    reported = list(enumerate(unbroken.result_.scores))
    assert_same_weights(weights(unbroken), weights(replace(make_model(), watch=listens).fit(*data)))
    assert heard == reported
    assert unbroken.result_.score == min(unbroken.result_.scores)
    heard.clear()
    with pytest.raises(LookupError, match=r"^pruned$"):
        replace(make_model(tmp_path), watch=gives_up).fit(*data)
    assert heard == reported[:2]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 10  # both epochs are in it
    for _ in range(2):  # resumed, then loaded: whoever joins late hears the earlier epochs, too
        heard.clear()
        resumed = replace(make_model(tmp_path), watch=listens).fit(*data)
        assert heard == reported
        assert_same_weights(weights(unbroken), weights(resumed))


class Fails(LitClassifier):
    """A bug in the eighth step."""

    __module__, __qualname__ = LitClassifier.__module__, LitClassifier.__qualname__  # same fingerprint

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == 8:
            raise ZeroDivisionError


def test_checkpoints_within_an_epoch_are_gone_on_from(tmp_path, data, unbroken):
    with pytest.raises(ZeroDivisionError):
        make_model(tmp_path, module=Fails, checkpoint_every_steps=2).fit(*data)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    assert float(checkpoint["train_loss"][1]) == 3  # batches of the second epoch so far
    resumed = make_model(tmp_path).fit(*data)  # how often it is saved decides no weight
    assert resumed.result_ == unbroken.result_
    assert_same_weights(weights(unbroken), weights(resumed))


@pytest.mark.slow
def test_ctrl_c_in_a_process_of_its_own(tmp_path):
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "import test_sequence as t\n"
        "model = t.make_model(pathlib.Path(sys.argv[1]), module=t.StopsAt)\n"
        "try:\n    model.fit(*t.split(t.make_samples()))\n"
        "except KeyboardInterrupt:\n    print('interrupted'); sys.exit(130)\n"
    )
    here = os.path.dirname(__file__)
    done = run("-c", code, str(tmp_path), here)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (130, "interrupted", "")
    assert (tmp_path / "last.ckpt").exists()


def test_checkpoints_of_other_settings_or_data_are_refused(tmp_path, data):
    stopped = make_model(tmp_path, module=StopsAt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*data)
    with pytest.raises(TrainingError, match=r"last\.ckpt belongs to fingerprint .* settings or data"):
        replace(as_plain(stopped), seed=8).fit(*data)
    with pytest.raises(TrainingError, match="fingerprint"):
        replace(stopped, module=partial(LitClassifier, lr=0.02)).fit(*data)
    train, valid = data
    with pytest.raises(TrainingError, match="fingerprint"):
        as_plain(stopped).fit(train.take(np.arange(100)), valid)
    as_plain(stopped).fit(train, valid)
    with pytest.raises(TrainingError, match=r"finished\.json belongs to fingerprint"):
        replace(as_plain(stopped), batch_size=32).fit(train, valid)
    shown = replace(as_plain(stopped), trainer=replace(stopped.trainer, loggers=("csv",)))
    shown.fit(train, valid)  # what is only shown does not change the fingerprint


def test_damaged_checkpoints_are_refused(tmp_path, data):
    fitted = make_model(tmp_path).fit(*data)
    (tmp_path / "best.ckpt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"best\.ckpt is not the file"):
        make_model(tmp_path).fit(*data)
    (tmp_path / "finished.json").unlink()
    (tmp_path / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        make_model(tmp_path).fit(*data)
    assert fitted.net_ is not None


def test_logs_land_in_the_workdir_and_nothing_is_said(tmp_path, data, capfd, caplog):
    caplog.set_level(logging.INFO)
    make_model(tmp_path, loggers=("csv", "tensorboard"), max_epochs=2).fit(*data)
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.text) == ("", "", "")
    lines = (tmp_path / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {"epoch", "train_loss", "valid_logloss", "valid_auc", "lr"} <= set(lines[0].split(","))
    assert list((tmp_path / "tensorboard" / "version_0").glob("events*"))
    assert json.loads((tmp_path / "finished.json").read_text())["epochs"] == 2


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_shows_epochs_on_a_terminal_only(data, capfd, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    make_model(progress_bar=True, max_epochs=1).fit(*data)
    assert ("epoch 1/1" in capfd.readouterr().err) == terminal


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said_in_one_line(data):
    with pytest.raises(TrainingError, match=r"trainer: a GPU is configured .* use trainer=cpu"):
        make_model(accelerator="gpu").fit(*data)


def test_fits_that_cannot_be_are_refused(data):
    train, valid = data
    with pytest.raises(TrainingError, match="no validation samples"):
        make_model().fit(train, valid.take(np.arange(0)))
    with pytest.raises(TrainingError, match=r"class \[1\]"):
        make_model().fit(train.take(train.y == 1), valid)
    with pytest.raises(TrainingError, match="before fit"):
        make_model().predict_proba(train.table, train.rows)
    bad = train.on(train.table.with_values(np.where(train.table.values > 2, np.nan, train.table.values)))
    with pytest.raises(TrainingError, match="nan at step 0"):
        make_model().fit(bad, valid)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accelerator": "tpu"},
        {"devices": 0},
        {"max_epochs": 0},
        {"patience": 0},
        {"loggers": ["paper"]},
        {"checkpoint_every_steps": 0},
    ],
)
def test_trainer_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=f"trainer:.*{next(iter(wrong))}"):
        TrainerSettings(**wrong)


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true"])
def test_a_precision_that_a_cpu_lacks_is_refused_by_name(precision, data, monkeypatch):
    with pytest.raises(TrainingError, match=f"precision={precision} on a CPU"):
        TrainerSettings(precision=precision)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fitted_elsewhere = make_model(precision=precision, accelerator="auto")  # a bundle's settings open anywhere
    with pytest.raises(TrainingError, match=f"precision={precision} on a CPU"):
        fitted_elsewhere.fit(*data)


def test_a_fit_in_double_precision_predicts_from_float32_windows(data):
    train, valid = data
    fitted = make_model(precision="64-true", max_epochs=1).fit(train, valid)
    assert np.isfinite(fitted.predict_proba(valid.table, valid.rows)).all()


def test_lightnings_determinism_switch_does_not_leak(data):
    make_model(deterministic=True, max_epochs=1).fit(*data)
    assert not torch.are_deterministic_algorithms_enabled()
    assert L.__name__ == "pytorch_lightning"
