"""Serving imports what a bundle holds and nothing else: no training library, no booster, no compiler."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tests.small_bundle import hourly_bars, logistic_bundle
from tests.unit.models.test_boosting import SMALL, make_samples
from tradsys.core.tables import Samples
from tradsys.serving.bundle import Bundle, seal
from tradsys.serving.session import Session, replay
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

HEAVY = ("torch", "lightning", "pytorch_lightning", "sklearn", "xgboost", "lightgbm", "pandas", "numba", "hmmlearn",
         "statsmodels", "scipy", "hydra", "omegaconf", "ccxt", "matplotlib", "plotly", "arch", "tradsys.labels",
         "tradsys.research")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return logistic_bundle(tmp_path_factory.mktemp("logistic") / "bundle").folder


CODE = """
import json, sys
import tradsys.serving
before = sorted(sys.modules)
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import Session
from tradsys.serving.strategy import Strategy
bundle = Bundle.load(sys.argv[1])
loaded = sorted(sys.modules)
import datetime, math, polars as pl
from tradsys.market.bars import SCHEMA
def bars(k):
    close = 100 + math.sin(k / 5) + 0.001 * k
    time = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(hours=k)
    return pl.DataFrame([["A", time, close, close + 1, close - 1, close, 10.0]], schema=SCHEMA, orient="row")
session = Session(bundle, pl.concat([bars(k) for k in range(300)]))
height = session.step(bars(300)).height
print(json.dumps({"package": before, "loaded": loaded, "stepped": sorted(sys.modules), "height": height}))
"""


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The logistic bundle with trees that audit it."""
    bundle = logistic_bundle(tmp_path_factory.mktemp("audited") / "bundle")
    names = (*bundle.features.names, "score")
    samples = make_samples()[0]
    values = np.hstack([samples.table.values, samples.table.values[:, :1]])
    table = replace(samples.table, values=values, names=names)
    auditor = SMALL[1].fit(Samples(**{**vars(samples), "table": table}), samples.take(np.arange(0)))
    auditor.save(bundle.folder / "auditor.json")
    seal(bundle.folder, bundle.card)
    return bundle.folder


@pytest.mark.parametrize(("kind", "held"), [("folder", set()), ("audited", {"numba", "scipy"})])
def test_a_bundle_is_loaded_and_stepped_without_what_it_does_not_hold(kind, held, request):
    folder = request.getfixturevalue(kind)
    done = subprocess.run([sys.executable, "-c", CODE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reported = json.loads(done.stdout)
    assert reported["height"] == 1
    for when in ("package", "loaded", "stepped"):
        assert sorted(set(HEAVY) & set(reported[when]) - held) == [], when
    assert not {"numpy", "polars"} & set(reported["package"])


def test_the_bundle_of_this_test_predicts_alike_in_a_batch_and_live(folder):
    bundle, bars = Bundle.load(folder), hourly_bars(320, ("A", "B"))
    since = bars["time"][310]
    live, batch = replay(bundle, bars, since), bundle.predict(bars, since)
    assert live.drop("score", "probability", "atr").equals(batch.drop("score", "probability", "atr"))
    for name in ("score", "probability", "atr"):
        np.testing.assert_allclose(live[name], batch[name], rtol=1e-6)


def test_a_live_step_plans_no_query_and_wakes_no_thread_of_polars(audited, monkeypatch):
    bundle, bars = Bundle.load(audited), hourly_bars(300, ("A", "B"))
    newest = bars["time"].max()
    strategy = Strategy("all", bundle, Profile(ThresholdRule(1e-9, "score")), 0.001)
    session, closed = Session(bundle, bars.filter(pl.col("time") < newest)), bars.filter(pl.col("time") == newest)

    def refused(*_a, **_k):
        raise AssertionError("a query in a live step")

    for owner, name in ((pl.LazyFrame, "collect"), (pl.DataFrame, "sort"), (pl.DataFrame, "filter")):
        monkeypatch.setattr(owner, name, refused)
    assert strategy.targets(closed, newest, session.step(closed))["symbol"].to_list() == ["A", "B"]
