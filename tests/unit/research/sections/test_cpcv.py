from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.baseline import BaseRate
from tradsys.models.boosting import LightGbm
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.linear import LogisticRegression
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import RobustScaler
from tradsys.portfolio.costs import Costs
from tradsys.research.pipeline.dataset import aware
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.research.sections.cpcv import cheap_model, cpcv_paths

HOURS, HORIZON = 2000, 6


def prepared_with(knows: float):
    """One symbol whose first column of three says as much of the next label's return as `knows`."""
    rng = np.random.default_rng(0)
    clock = np.datetime64("2021-01-01T01", "us") + np.arange(HOURS) * np.timedelta64(1, "h")
    ret = rng.normal(0, 0.01, HOURS)
    values = rng.normal(size=(HOURS, 3))
    values[:, 0] += knows * ret / 0.01
    codes = np.zeros(HOURS, dtype=np.int32)
    table = FeatureTable(codes, clock, codes, values.astype(np.float32), ("x", "y", "z"), ("AAA",))
    rows = np.arange(HOURS - HORIZON)
    samples = Samples(table, rows, (ret[rows] > 0).astype(int), np.ones(len(rows)), rows, rows + HORIZON, ret[rows])
    return SimpleNamespace(samples=samples, data_digest="d" * 64)


def experiment_of(model, **baselines):
    return SimpleNamespace(
        model=model,
        baselines=baselines,
        transforms=RobustScaler(),
        time_decay=1.0,
        data={"calendar": None},
        labels=SimpleNamespace(horizon_bars=HORIZON),
        costs=Costs(1, 0),
        evaluation=Evaluation(cpcv=True, cpcv_groups=5, cpcv_test_groups=2),
    )


SOURCE = {"code_sha": "0", "config_digest": "c"}


def test_paths_of_a_model_that_knows_and_of_one_that_does_not(tmp_path):
    sharpes = {}
    for knows in (2.0, 0.0):
        prepared = prepared_with(knows)
        ledger = TrialLedger(tmp_path / f"{knows}.db")
        reported = cpcv_paths(experiment_of(LogisticRegression()), prepared, ledger, SOURCE, Path("runs/x"))
        sharpes[knows] = reported["sharpe"]
        assert (reported["n_fits"], reported["n_paths"], reported["model"], reported["stands_in"]) == (
            10,
            4,
            "primary",
            False,
        )
    assert min(sharpes[2.0]) > 5
    assert np.median(sharpes[0.0]) < 2


def test_every_path_is_a_trial_of_the_span(tmp_path):
    prepared = prepared_with(1.0)
    ledger = TrialLedger(tmp_path / "ledger.db")
    reported = cpcv_paths(experiment_of(LogisticRegression()), prepared, ledger, SOURCE, Path("runs/x"))
    looks = ledger.entries()
    assert [(e["purpose"], e["subject"]) for e in looks] == [("cpcv", f"primary, path {p}") for p in range(1, 5)]
    samples = prepared.samples
    span = (aware(samples.time.min()), aware(samples.time.max()))
    trials = ledger.trials("d" * 64, *span)
    assert len(trials) == len({tuple(t.returns) for t in trials}) == 4
    for trial, sharpe in zip(trials, reported["sharpe"], strict=True):
        assert len(trial.returns) == reported["n_days"]
        assert trial.returns.mean() / trial.returns.std(ddof=1) * np.sqrt(365) == pytest.approx(sharpe)


@pytest.mark.parametrize("side", ["of the features", "of the label"])
def test_a_short_label_is_a_short_position_on_every_path(tmp_path, side):
    """The same log returns earn less as shorts, by the moves' variance: 1 - exp(-r) is below exp(r) - 1."""
    experiment = experiment_of(LogisticRegression())
    longs = prepared_with(2.0)
    shorts, own = longs.samples, np.full(HOURS, -1.0, dtype=np.float32)
    if side == "of the features":
        table = shorts.table.take(np.arange(HOURS), {"side": own})
        shorts = replace(shorts, table=table)
    else:
        experiment.labels.side = -1
    with_shorts = SimpleNamespace(samples=shorts, data_digest="e" * 64)
    found = []
    for name, prepared in (("a", longs), ("b", with_shorts)):
        ledger = TrialLedger(tmp_path / f"{name}.db")
        one = experiment if name == "b" else experiment_of(LogisticRegression())
        cpcv_paths(one, prepared, ledger, SOURCE, tmp_path)
        found.append(np.stack([ledger.series(e["series_digest"]) for e in ledger.entries()]).sum(axis=1))
    assert (found[1] < found[0]).all()


def test_a_sequence_model_is_never_refitted_many_times():
    deep = SequenceModel(
        net=TransformerEncoder, module=LitClassifier, trainer=TrainerSettings(), lookback=4, batch_size=2
    )
    linear = LogisticRegression(C=0.5)
    assert cheap_model(experiment_of(deep, logistic=linear, base_rate=BaseRate())) == ("logistic", linear)
    assert cheap_model(experiment_of(SeedAverage(deep, 2), logistic=linear)) == ("logistic", linear)
    pool = Average({"deep": deep, "line": linear})
    assert cheap_model(experiment_of(pool, logistic=linear)) == ("logistic", linear)
    assert isinstance(cheap_model(experiment_of(deep))[1], LogisticRegression)
    tree = LightGbm()
    assert cheap_model(experiment_of(tree, logistic=linear)) == ("primary", tree)
