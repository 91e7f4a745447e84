"""The loop of one device against Lightning's own, which stays the oracle."""

import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch

from tests.unit.models import test_supcon
from tests.unit.models.test_sequence import StopsAt, make_model, make_samples, split, weights
from tests.unit.models.training.test_recipe import RECIPE
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.lit_supcon import LitSupCon
from tradsys.models.training.loop import DirectLoop
from tradsys.models.training.trainer import TrainerSettings
from tradsys.samples.loader import WindowLoader


@pytest.fixture(scope="module")
def data():
    return split(make_samples(300))


@pytest.fixture
def lightning(monkeypatch):
    """Fits run under Lightning's loop while it is called."""

    def switch(on: bool) -> None:
        if on:
            monkeypatch.setattr(DirectLoop, "serves", staticmethod(lambda *_: False))
        else:
            monkeypatch.undo()

    return switch


def with_settings(model, module=LitClassifier, **recipe):
    return replace(model, module=partial(module, lr=0.01, **recipe))


@pytest.mark.parametrize(
    "model",
    [
        make_model(max_epochs=3),
        make_model(max_epochs=3, gradient_clip=None),
        make_model(max_epochs=6, patience=1, gradient_clip=0.05),
        make_model(max_epochs=2, precision="bf16-mixed"),
        with_settings(make_model(max_epochs=3, keep="last"), class_weight="balanced", **RECIPE),
        replace(test_supcon.make_model(), trainer=TrainerSettings(max_epochs=3, patience=3)),
    ],
    ids=["plain", "unclipped", "stopped early", "bf16", "recipe", "supcon"],
)
def test_both_loops_end_with_the_same_weights_and_scores(model, data, lightning):
    ours = model.fit(*data)
    lightning(True)
    theirs = model.fit(*data)
    assert (ours.result_.epochs, ours.result_.best_epoch) == (theirs.result_.epochs, theirs.result_.best_epoch)
    np.testing.assert_allclose(ours.result_.scores, theirs.result_.scores, rtol=1e-6)
    mine, other = weights(ours), weights(theirs)
    assert mine.keys() == other.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-6, msg=name)
    short = replace(model, trainer=replace(model.trainer, max_epochs=model.trainer.max_epochs + 1)).fit(*data)
    assert not torch.equal(weights(short)[name], tensor)  # the comparison is able to fail


def test_a_fit_holds_one_batch_at_a_time(data, monkeypatch):
    """Of two, the second would be gathered into memory that is no longer in the cache, and a GPU would hold both."""
    gathered, windows, left = WindowLoader.batch, [], []

    def batch(loader, picked):
        left.append(sum(ref() is not None for ref in windows))
        parts = gathered(loader, picked)
        windows.append(weakref.ref(parts[0]))
        return parts

    monkeypatch.setattr(WindowLoader, "batch", batch)
    make_model(max_epochs=2).fit(*data)
    assert len(windows) > 4
    assert not any(left)


def test_a_fit_that_lightning_began_is_gone_on_with(data, lightning, tmp_path):
    unbroken = make_model().fit(*data)
    lightning(True)
    with pytest.raises(KeyboardInterrupt):
        make_model(tmp_path, module=StopsAt).fit(*data)
    lightning(False)
    resumed = make_model(tmp_path).fit(*data)
    for name, tensor in weights(unbroken).items():
        torch.testing.assert_close(weights(resumed)[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_both_loops_log_the_same_epochs(data, lightning, tmp_path):
    found = []
    for folder, on in (("ours", False), ("theirs", True)):
        lightning(on)
        make_model(tmp_path / folder, loggers=("csv",), max_epochs=2).fit(*data)
        rows = pl.read_csv(tmp_path / folder / "csv" / "version_0" / "metrics.csv")
        found.append(rows.group_by("epoch").agg(pl.all().drop_nulls().last()).sort("epoch"))
    ours, theirs = found
    assert set(ours.columns) == set(theirs.columns)
    np.testing.assert_allclose(ours.to_numpy(), theirs.select(ours.columns).to_numpy(), rtol=1e-5)


class Foreign(LitClassifier):
    """A module of another package, which may read anything of its trainer."""


class Backward(LitClassifier):
    __module__ = LitClassifier.__module__

    def backward(self, loss):
        loss.backward()


class Counts(LitClassifier):
    __module__ = LitClassifier.__module__

    def on_train_epoch_start(self):
        pass


def test_it_serves_what_it_calls():
    plain = TrainerSettings()
    net = make_model().built_net(n_features=3, n_classes=2)
    assert DirectLoop.serves(plain, LitClassifier(net))
    assert DirectLoop.serves(plain, LitSupCon(net, views=lambda w: (w, w)))
    assert not DirectLoop.serves(plain, Foreign(net))
    assert not DirectLoop.serves(plain, Backward(net))
    assert not DirectLoop.serves(plain, Counts(net))
    assert not DirectLoop.serves(replace(plain, precision="64-true"), LitClassifier(net))
    assert not DirectLoop.serves(replace(plain, devices=2), LitClassifier(net))
