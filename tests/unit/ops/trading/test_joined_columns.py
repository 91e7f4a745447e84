"""A bundle with columns beside prices: its replay is its backtest, live bars get the same columns, old ones stop."""

from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tests.integration.test_trade_replay import NO_LIMITS, assert_same
from tests.small_bundle import logistic_bundle
from tradsys.core.errors import DataError
from tradsys.features.feature_set import FeatureSet
from tradsys.features.point_in_time import Known, KnownClass
from tradsys.features.volatility import VolatilityClass
from tradsys.market.bars import COLUMNS, mark_gaps
from tradsys.market.known import JoinedBars
from tradsys.market.macro.listing import ListingAge
from tradsys.market.macro.session_series import SessionSeries
from tradsys.market.synthetic import SyntheticMarket
from tradsys.ops.trading.bot import Plan, engine_of, opened, run_replay
from tradsys.ops.trading.live import _listener, check_columns
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.serving.bundle import Bundle
from tradsys.serving.feeds import StoredFeed
from tradsys.serving.joined import JoinedSession, LiveColumns, StaleColumnsError, StoredColumns
from tradsys.serving.paper import PaperBroker
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

SYMBOLS = ("SYN0", "SYN1")
N_BARS = 60


def write_series(path, until):
    days = pl.date_range(date(2022, 12, 1), until, "1d", eager=True)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.05, len(days)).cumsum())
    pl.DataFrame({"date": days, "symbol": "VIX", "close": 20 * noise}).write_parquet(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("known") / "daily.parquet"
    write_series(path, date(2023, 3, 1))
    return JoinedBars(
        SyntheticMarket(symbols=SYMBOLS, n_bars=700),
        {"vix": SessionSeries(str(path), series="VIX", name="vix", settles="16:15")},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return logistic_bundle(tmp_path_factory.mktemp("bundle") / "b", (Known("vix_1s"),))


def session_of(data, bars, kind):
    columns = StoredColumns(bars) if kind == "stored" else LiveColumns(data)
    return partial(JoinedSession, columns=columns, max_age_hours=100)


def plan_of(folder, bundle):
    strategy = Strategy("busy", bundle, Profile(ThresholdRule(0.4, "score")), Costs().round_trip)
    return Plan("bot", "replay", folder, strategy, SYMBOLS, 1.0, Costs(), NO_LIMITS)


@pytest.mark.parametrize("kind", ["stored", "live"])
def test_a_replay_with_joined_columns_is_the_backtest(data, bundle, tmp_path, kind):
    bars = data.bars()
    since = bars["time"].unique().sort()[-N_BARS]
    plan = plan_of(tmp_path / kind, bundle)
    feed = StoredFeed(bars if kind == "stored" else bars.select(COLUMNS), since, SYMBOLS)
    state = run_replay(plan, feed, PaperBroker(Costs()), sessions=session_of(data, bars, kind))
    targets = plan.strategy.targets(bars, since)
    want = simulate(mark_gaps(bars, bundle.max_gap).filter(pl.col("time") >= since), targets, Costs())
    assert want.trades.height > 5
    assert_same(state.ledger(), want)


def test_traits_are_the_batchs_at_every_bar(tmp_path):
    """Volatility class and age of each bar as it closes, with the age's class changing on the way."""
    market = SyntheticMarket(symbols=SYMBOLS, n_bars=700)
    data = JoinedBars(market, {"age": ListingAge({"market": market}, first_days=27.9, classes=2)})
    bars = data.bars()
    learnt = FeatureSet([VolatilityClass(48, 3)], max_gap_minutes=60).fit(bars).features
    bundle = logistic_bundle(tmp_path / "b", (*learnt, KnownClass("age_class", 2)), weight=0.5)
    moments = bars["time"].unique().sort()[-N_BARS:]
    batch = bundle.predict(bars, moments[0]).select("symbol", "time", "score").sort("time", "symbol")
    plain = bars.select(COLUMNS)
    past = plain.filter(pl.col("time") < moments[0])
    session = JoinedSession(bundle, past, columns=LiveColumns(data), max_age_hours=100)
    steps = pl.concat([session.step(plain.filter(pl.col("time") == moment)) for moment in moments])
    got = steps.select("symbol", "time", "score").sort("time", "symbol")
    assert got.select("symbol", "time").equals(batch.select("symbol", "time"))
    np.testing.assert_allclose(got["score"], batch["score"], rtol=0, atol=1e-9)
    codes = bundle.features.table(bars).values[:, -2:][bars["time"].is_in(moments.implode()).to_numpy()]
    assert (set(codes[:, 0]), set(codes[:, 1])) == ({2.0, 3.0}, {0.0, 2.0})


def test_columns_that_are_too_old_give_no_forecast_until_they_are_fetched_again(data, bundle, tmp_path):
    path = tmp_path / "daily.parquet"
    joins = JoinedBars(data.source, {"vix": replace(data.known["vix"], path=str(path))})
    bars = data.source.bars()
    times = bars["time"].unique().sort()
    write_series(path, (times[-30] - timedelta(days=5)).date())
    sessions = partial(JoinedSession, columns=LiveColumns(joins), max_age_hours=100)
    plan = plan_of(tmp_path / "bot", bundle)
    with opened(plan) as (journal, state):
        engine = engine_of(plan, StoredFeed(bars, times[-30], SYMBOLS), PaperBroker(Costs()), journal, state,
                           sessions=sessions)  # fmt: skip
        with pytest.raises(StaleColumnsError, match=r"vix is 1\d\d hours old; .* max_age_hours=100 old; fetch"):
            check_columns(engine)
        for n, moment in enumerate(StoredFeed(bars, times[-30], SYMBOLS).moments(None)):
            if n == 15:
                write_series(path, times[-1].date())
            engine.step(moment)
        notes = [e.body for e in journal.events(kinds=["note"])]
        assert [n["what"] for n in notes] == ["columns"] * 15
        decisions = [e.body["rows"]["SYN0"] for e in journal.events(kinds=["decision"])]
    assert all("hours old" in row["action"] for row in decisions[:15])
    assert all("probability" in row for row in decisions[15:])
    again = Bundle.predict(bundle, data.bars(), since=times[-15]).filter(pl.col("symbol") == "SYN0")
    np.testing.assert_allclose([row["probability"] for row in decisions[15:]], again["probability"], atol=1e-6)


def test_data_that_join_too_little_are_refused(data, bundle):
    lacking = JoinedBars(data.source, {"vix": replace(data.known["vix"], sessions=(5,))})
    with pytest.raises(DataError, match=r"reads \['vix_1s'\], which the data do not have"):
        JoinedSession(bundle, data.source.bars(), columns=LiveColumns(lacking))


def test_a_notice_of_old_columns_is_sent_once():
    sent = []
    listen = _listener(SimpleNamespace(send=lambda *words: sent.append(words)), "bot")
    for kind, body in [("note", {"what": "columns", "why": "vix is 120 hours old"})] * 3 + [("prediction", {})]:
        listen(kind, body)
    assert sent == [("bot: no forecasts", "vix is 120 hours old")]
