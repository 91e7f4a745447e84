"""The audit is kept honest: every planted leak is caught by name, and tradsys without one raises none."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.leaks.columns import PEEKS, honest_macro
from tests.leaks.data import hours_of_minutes
from tests.leaks.every import LEAKS
from tests.leaks.registry import with_features
from tradsys.config.compose import as_dict, build, compose
from tradsys.features.calendar import HourOfDay
from tradsys.features.feature_set import FeatureSet
from tradsys.features.fracdiff import FracDiff
from tradsys.features.liquidity import VolumeRatio
from tradsys.features.price import LogReturn, RangePosition, ZScore
from tradsys.features.volatility import Volatility
from tradsys.research.experiment import Experiment
from tradsys.research.leakage.audit import run_checks
from tradsys.research.leakage.subject import AuditSettings, AuditSubject

pytestmark = pytest.mark.slow
CHEAP = [
    "data.n_bars=1000", "model=lightgbm", "model.min_child_samples=20", "regime.lookback=24", "seed=3",
    "+model.n_threads=1", "+auditor.n_threads=1", "+baselines.lightgbm.n_threads=1",
]  # fmt: skip
SIZE = {"n_rows": 3000, "n_cuts": 4, "n_estimators": 10, "max_iter": 10, "n_samples": 500}
FEATURES = [LogReturn(1), LogReturn(24), ZScore(24), RangePosition(24), Volatility(24), VolumeRatio(24)]


@pytest.fixture(scope="module")
def unpatched():
    """A cheap experiment of the package's own parts, and its config."""
    config = compose("audit", CHEAP)
    parts = build(config)
    experiment = Experiment.of(parts)
    features = FeatureSet([*FEATURES, HourOfDay("sine"), FracDiff(tol=1e-3)], max_gap_minutes=360, market_symbol="SYN0")
    return replace(experiment, features=features), as_dict(config)


def findings(experiment, config, folder, parts=None, questions=None):
    settings = AuditSettings(**SIZE, parts=parts, questions=questions)
    return [a.finding for a in run_checks(AuditSubject(experiment, settings, folder, config)) if a.finding]


def test_there_are_enough_leaks_and_each_has_its_own_name():
    assert len(LEAKS) >= 24
    assert Counter(leak.name for leak in LEAKS).most_common(1)[0][1] == 1


def test_the_package_raises_none(unpatched, tmp_path):
    assert findings(*unpatched, tmp_path) == []


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.name)
def test_a_planted_leak_is_caught_by_name(leak, unpatched, tmp_path, monkeypatch):
    experiment, config = unpatched
    planted = leak.plant(monkeypatch, experiment)
    found = findings(planted, config, tmp_path, [leak.part], [leak.question])
    assert found, f"{leak.name} was not caught"
    assert {(f.part, f.question) for f in found} == {(leak.part.split(" ")[0], leak.question)}
    assert all(f.column and f.row and f.size > 0 for f in found)


def test_the_offending_column_and_row_are_named(unpatched, tmp_path, monkeypatch):
    experiment, config = unpatched
    planted = with_features(experiment, PEEKS["centred window"])
    (found,) = findings(planted, config, tmp_path, ["features"], ["future"])
    assert found.column == "peek"
    assert found.row.startswith("SYN0 2023-")
    assert found.how.startswith("cut after 2023-")


@pytest.mark.parametrize(
    ("part", "made"),
    [("features", honest_macro), ("source", lambda e: hours_of_minutes(e, "close"))],
    ids=["macro as of its publication", "bars stamped at their close"],
)
def test_the_honest_twin_of_a_leak_is_none(part, made, unpatched, tmp_path):
    experiment, config = unpatched
    assert findings(made(experiment), config, tmp_path, [part], ["future"]) == []
