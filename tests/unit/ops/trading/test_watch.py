"""Live bars against the run: what has not changed passes, what moved is named, a second time in a row halts."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.small_bundle import hourly_bars, logistic_bundle
from tradsys.core.errors import BundleError
from tradsys.core.runs import write_json
from tradsys.evidence.classification import evaluate
from tradsys.evidence.controls.block_drift import BlockReference
from tradsys.labels.triple_barrier import triple_barrier
from tradsys.ops.trading.risk import Risk
from tradsys.ops.trading.state import State
from tradsys.ops.trading.store import Event
from tradsys.ops.trading.watch import OUT, UNKNOWN, ModelWatch
from tradsys.serving.bundle import DRIFT, Bundle, seal
from tradsys.serving.session import Session

SYMBOLS = ("AAA", "BBB")
N_TRAIN, N_LIVE = 1900, 432
BARS = hourly_bars(N_TRAIN + N_LIVE, SYMBOLS)
TIMES = BARS["time"].unique().sort()


def reference(values, time, names, **kwargs):
    return BlockReference.of(values, time, names, **kwargs).to_json()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle whose references come from the first bars."""
    folder = tmp_path_factory.mktemp("bundle")
    first = logistic_bundle(folder, weight=0.02)
    past = BARS.filter(pl.col("time") <= TIMES[N_TRAIN - 1])
    table = first.features.table(past)
    rows = np.flatnonzero(table.ready(1))
    score = first.primary.predict(table, rows)[0][:, 1:2]
    drift = {
        "features": reference(table.values[rows], table.time[rows], table.names),
        "scores": reference(score, table.time[rows], ("score",), classifier=False),
    }
    write_json(folder / DRIFT, drift)
    signals = {"coin": {"settings": "half", "value": 0.5, "low": 0.4, "high": 0.6, "reason": None}}
    made = triple_barrier(past, upper=2, lower=1, horizon_bars=12, atr_bars=14)
    labelled = np.flatnonzero(made.y[rows] >= 0)
    proba = first.primary.predict(table, rows[labelled])[1]
    metrics = evaluate(
        proba, made.y[rows][labelled], np.array([0.6, 0.4]), time_N=table.time[rows[labelled]], min_block=12
    )
    seal(folder, first.card | {"data": {"digest": "none", "symbols": list(SYMBOLS)}, "metrics": metrics,
                               "signals": signals})  # fmt: skip
    return Bundle.load(folder)


class Desk:
    """What the watch needs of an engine: steps sessions, journals into a state."""

    def __init__(self, bundle, bars, model_band="halt", signal=lambda k: k % 2 == 0):
        self.risk = Risk(*[None] * 8, model_band=model_band)
        past = bars.filter(pl.col("time") <= TIMES[N_TRAIN - 1])
        self.predictor, self.watch = Session(bundle, past), ModelWatch(bundle, past)
        self.state, self.bars, self.signal = State(), bars, signal
        self.record(("start", {"symbols": list(SYMBOLS), "capital": 1.0, "strategy": "coin", "profile": "half"}))

    def record(self, *events):
        for kind, body in events:
            self.state.apply(Event(self.state.last_event + 1, "2024-01-01", kind, body))

    def halt(self, rule, why):
        self.record(("halt", {"rule": rule, "why": why}))

    def run(self, n_bars=N_LIVE):
        later = self.bars.filter(pl.col("time") > TIMES[N_TRAIN - 1]).sort("time", "symbol")
        for k, closed in enumerate(later.partition_by("time", maintain_order=True)[:n_bars]):
            time = closed["time"][0].isoformat()
            predictions = self.predictor.step(closed)
            self.watch.add(predictions, self.predictor.newest)
            rows = {row["symbol"]: row for row in predictions.iter_rows(named=True)}
            action = "enter long" if self.signal(k) else "no signal"
            decisions = {s: {"action": action} for s in SYMBOLS}
            self.record(("prediction", {"time": time, "rows": rows}), ("decision", {"time": time, "rows": decisions}))
            self.watch.step(self)
        return {row["check"]: row for row in self.state.watch["checks"]}


def moved(bars, factor):
    """Live bars whose moves are that many times larger."""
    live, anchor = pl.col("time") > TIMES[N_TRAIN - 1], bars.filter(pl.col("time") == TIMES[N_TRAIN - 1])
    joined = bars.join(anchor.select("symbol", last="close"), on="symbol").sort("symbol", "time")
    prices = ("open", "high", "low", "close")
    wild = [
        pl.when(live).then(pl.col("last") * (pl.col(p) / pl.col("last")) ** factor).otherwise(p).alias(p)
        for p in prices
    ]
    return joined.with_columns(wild).drop("last")


@pytest.fixture(scope="module")
def unchanged(bundle):
    """A desk that ran on bars like those before, and its last checks."""
    desk = Desk(bundle, BARS)
    return desk, desk.run()


def test_a_market_that_did_not_change_is_inside(unchanged):
    desk, checks = unchanged
    assert [name for name, row in checks.items() if row["state"] == OUT] == []
    known = {name for name, row in checks.items() if row["state"] != UNKNOWN}
    assert {"features, PSI", "features, classifier", "scores, PSI", "log loss", "calibration slope"} <= known, checks
    assert not desk.state.halts


def test_wilder_bars_are_named_and_halt_the_second_time(bundle):
    desk = Desk(bundle, moved(BARS, 3))
    checks = desk.run(96)
    assert checks["features, PSI"]["state"] == OUT
    assert "vol_20" in checks["features, PSI"]["live"]
    assert checks["features, classifier"]["state"] == OUT
    notes = [n for n in desk.state.notes if n["kind"] == "note"]
    assert "out of its band" in notes[0]["why"]
    assert "stays out" in desk.state.halts["model"]


def test_a_warning_halts_nothing_unless_it_is_asked_to(bundle):
    desk = Desk(bundle, moved(BARS, 3), model_band="warn")
    desk.run(72)
    assert desk.state.notes
    assert not desk.state.halts


def test_signals_much_rarer_than_the_backtests_are_out(bundle):
    rng = np.random.default_rng(0)
    checks = Desk(bundle, BARS, signal=lambda _: rng.uniform() < 0.1).run(120)
    assert checks["share of bars with a signal"]["state"] == OUT


def test_the_block_is_full_from_the_bars_before_the_start(bundle):
    watch, past = ModelWatch(bundle, BARS), BARS
    watch._fill()
    assert len(watch._block) == watch.n_bars
    table = bundle.features.table(past)
    last = table.values[table.time == table.time.max()]
    np.testing.assert_array_equal(watch._block[-1][1], last)


def test_forecasts_are_scored_once_each_and_only_after_their_last_bar(bundle, unchanged):
    desk, _ = unchanged
    times = [t for t, _ in desk.state.outcomes]
    assert times == sorted(set(times))
    horizon = timedelta(hours=bundle.card["label"]["horizon_bars"])
    evaluated = datetime.fromisoformat(desk.state.watch["time"])
    assert times[0] == TIMES[N_TRAIN], "the first live forecast"
    assert times[-1] == evaluated - horizon, "no outcome is taken before every one of its time could be"


def test_a_bundle_without_references_says_so(tmp_path):
    watch = ModelWatch(logistic_bundle(tmp_path))
    state = State(decided=datetime(2024, 1, 1, tzinfo=UTC))
    seen = watch.evaluate(state, None)
    assert seen["out"] == {}
    assert {row["state"] for row in seen["checks"]} == {UNKNOWN}
    assert any("train again" in row["note"] for row in seen["checks"])


@pytest.mark.parametrize(
    "harm",
    [lambda b: b["features"].pop("psi"), lambda b: b["features"].update(names=["x"]), lambda b: b.update(features=3),
     lambda b: b["features"].update(sample=[[1.0]]), lambda b: b["features"].update(n_bars=10**9),
     lambda b: b["features"]["edges"].__setitem__(0, list(range(9, 0, -1)))],
    ids=["missing", "names", "number", "sample", "bars", "edges"],
)  # fmt: skip
def test_a_damaged_reference_is_refused_in_one_line(bundle, tmp_path, harm):
    body = json.loads((bundle.folder / DRIFT).read_text())
    harm(body)
    write_json(tmp_path / DRIFT, body)
    with pytest.raises(BundleError, match=r"drift\.json.*export the bundle again"):
        ModelWatch(SimpleNamespace(folder=tmp_path, features=bundle.features, card=bundle.card))
