"""The audit of pre-training: silent on the package's own stages, loud on one that reads beyond the training span."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.unit.models.conftest import one_thread  # noqa: F401 - of every test here
from tests.unit.models.test_sequence import make_model, make_samples
from tradsys.models.ensembles.compose import SeedAverage
from tradsys.models.training import pretraining
from tradsys.models.training.pretraining import ContrastInTime, MaskedBars
from tradsys.models.transforms import RobustScaler
from tradsys.research.leakage.pretraining_corpus import corpus_checks, pretrained, reads_beyond


@pytest.fixture(scope="module")
def train():
    samples = make_samples(300)
    return samples.take(np.flatnonzero((samples.rows < 200) & (samples.rows % 4 == 0)))


def model(stage):
    return replace(make_model(max_epochs=1), pretrain=stage)


@pytest.mark.parametrize("stage", [MaskedBars(epochs=1, batch_size=64), ContrastInTime(epochs=1, batch_size=64)])
def test_the_packages_own_stages_read_nothing_later_and_a_careless_corpus_is_found(train, monkeypatch, stage):
    assert reads_beyond(model(stage), train) is None
    rule = pretraining.corpus_rows

    def careless(train, lookback, end=None):
        """A planted leak: eight windows of one step each beyond the last training decision."""
        rows = rule(train, lookback, end)
        return np.concatenate([rows, rows[-1] + np.arange(1, 9)])

    monkeypatch.setattr(pretraining, "corpus_rows", careless)
    found = reads_beyond(model(stage), train)
    assert found.weight
    assert found.size > 0
    assert found.last.startswith("AAA 2020-01-09T04:00")


@dataclass(frozen=True)
class WholeTable:
    """A planted leak of one's own making: centres the encoder's first layer on the mean of the whole table."""

    def run(self, net, train, *, lookback, seed, device):
        with torch.no_grad():
            net.project.bias[:3] += torch.from_numpy(train.table.values.mean(axis=0))


def test_the_question_is_asked_of_every_model_that_pre_trains_and_of_no_other(train):
    inner = model(MaskedBars(epochs=1, batch_size=64))
    average = SeedAverage(model=model(WholeTable()), n_seeds=2, seed=0)
    experiment = SimpleNamespace(
        model=inner, baselines={"plain": make_model(), "leaky": average}, transforms=RobustScaler()
    )
    subject = SimpleNamespace(experiment=experiment, small=experiment, prepared=SimpleNamespace(train=train))
    checks = corpus_checks(subject)
    assert list(checks) == ["primary pre-training", "baseline leaky pre-training"]
    assert checks["primary pre-training"](subject) is None
    found = checks["baseline leaky pre-training"](subject)
    assert (found.part, found.column) == ("baseline leaky pre-training", "project.bias")
    assert "changed" in found.how
    assert list(pretrained(make_model())) == []
