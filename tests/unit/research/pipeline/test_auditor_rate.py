"""The auditor's base rate is that of every model: class rates under the weights of its fit."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.calibrators import Temperature
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler
from tradsys.portfolio.costs import Costs
from tradsys.research import evaluation
from tradsys.research.pipeline.settings import Evaluation, Timings
from tradsys.research.pipeline.training import fit
from tradsys.samples.weights import class_rates

N = 900


@dataclass(frozen=True)
class Recorder:
    """An auditor that keeps what it was fitted on."""

    trained_on: list = field(default_factory=list)

    def fit(self, train, valid):
        self.trained_on.append(train)
        return self

    def predict_proba(self, table, rows):
        return np.full((len(rows), 2), 0.5)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A market whose paying samples weigh three times as much as the others."""
    rng = np.random.default_rng(0)
    ret = rng.normal(0, 0.01, N)
    values = np.column_stack([ret + rng.normal(0, 0.02, N), rng.normal(size=N)]).astype(np.float32)
    codes, time = np.zeros(N, dtype=np.int32), np.datetime64("2024-01-01", "us") + np.arange(N) * np.timedelta64(1, "h")
    rows, weight = np.arange(N), np.where(ret > 0.003, 3.0, 1.0)
    all_of = Samples(FeatureTable(codes, time, codes, values, ("a", "b"), ("A",)), rows, (ret > 0).astype(int), weight,
                     rows, np.minimum(rows + 2, N - 1), ret)  # fmt: skip
    train, valid, test = (all_of.take(np.arange(*ends)) for ends in ((0, 500), (503, 700), (703, N - 3)))
    auditor = Recorder()
    experiment = SimpleNamespace(
        model=LogisticRegression(), baselines={}, regime=None, auditor=auditor, transforms=RobustScaler(),
        time_decay=1.0, calibration=Temperature(), costs=Costs(10, 5), labels=SimpleNamespace(horizon_bars=2), seed=0,
        evaluation=Evaluation(n_oof_folds=2, candidate_quantile=0.2, confidence=0.8),
    )  # fmt: skip
    prepared = SimpleNamespace(train=train, valid=valid, test=test, samples=all_of)
    return experiment, prepared, fit(experiment, prepared, tmp_path_factory.mktemp("fits"), Timings()), auditor


def test_the_rate_of_candidates_that_paid_has_the_weights_of_the_fit(fitted):
    _, _, found, auditor = fitted
    (trained,) = auditor.trained_on
    assert found.candidate_paid == class_rates(trained, 2)[1]
    assert found.candidate_paid > trained.y.mean() + 0.1


def test_every_interval_of_a_run_has_the_confidence_that_its_page_states(fitted, monkeypatch):
    experiment, prepared, found, _ = fitted
    asked = []
    for name in ("evaluate", "reliability"):
        own = getattr(evaluation, name)
        monkeypatch.setattr(evaluation, name, lambda *a, own=own, **k: (asked.append(k["confidence"]), own(*a, **k))[1])
    test, primary = prepared.test, SimpleNamespace(predict=lambda t, r: (found.primary.score(t, r), None))
    row = evaluation._auditor_row(experiment, prepared, found, SimpleNamespace(primary=primary))
    assert row is not None
    assert row["metrics"]["confidence"] == 0.8
    evaluation._reliability(experiment, {"primary": found.primary.predict_proba(test.table, test.rows)}, test)
    assert asked == [0.8, 0.8]
