"""The same moments, however they are written, give the same predictions, targets and ledgers."""

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tradsys.core.errors import DataError
from tradsys.features.calendar import DayOfWeek, HourOfDay
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import bar_length, content_digest, span, utc_bars
from tradsys.market.calendars import periods_per_year
from tradsys.market.store import BarStore
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import simulate
from tradsys.portfolio.vectorbt_adapter import simulate_many
from tradsys.serving.bundle import Bundle
from tradsys.serving.session import Session
from tradsys.serving.strategy import Profile, Strategy, ThresholdRule

ZONES = (None, "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Tokyo")
UNITS = ("ms", "us", "ns")
WRITTEN = st.tuples(st.sampled_from(UNITS), st.sampled_from(ZONES))
COSTS = Costs(fee_bps=10, slippage_bps=5)


def written(frame: pl.DataFrame, form: tuple[str, str | None]) -> pl.DataFrame:
    unit, zone = form
    time = frame["time"].cast(pl.Datetime(unit, "UTC"))
    time = time.dt.replace_time_zone(None) if zone is None else time.dt.convert_time_zone(zone)
    return frame.with_columns(time)


def keys(moment: dt.datetime) -> list[object]:
    naive = moment.replace(tzinfo=None)
    return [moment, naive, naive.isoformat(), moment.astimezone(ZoneInfo("Asia/Tokyo")), np.datetime64(naive, "ns"),
            pd.Timestamp(moment).tz_convert("America/New_York")]  # fmt: skip


@pytest.fixture(scope="module")
def served(run_folder):
    bundle = Bundle.load(run_folder / "bundle")
    bars = bundle_bars(bundle)
    since = bars["time"].unique().sort()[-6]
    strategy = Strategy("all", bundle, Profile(ThresholdRule(0.3, "quantile", short=True)), round_trip=0.003)
    return bundle, bars, since, strategy


def bundle_bars(bundle: Bundle) -> pl.DataFrame:
    from tradsys.market.synthetic import SyntheticMarket

    config = {k: v for k, v in bundle.data_config()["source"].items() if k != "_target_"}
    bars = SyntheticMarket(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}).bars()
    return bars.group_by("symbol", maintain_order=True).tail(bundle.history + 60)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=WRITTEN, other=WRITTEN, key=st.integers(0, 5))
def test_predictions_targets_and_ledgers_do_not_depend_on_how_time_is_written(served, form, other, key):
    bundle, bars, since, strategy = served
    expected = bundle.predict(bars, since)
    found = bundle.predict(written(bars, form), keys(since)[key])
    assert found.equals(expected)
    wanted = strategy.targets(bars, since)
    assert strategy.targets(written(bars, form), keys(since)[key]).equals(wanted)
    ledger, same = simulate(bars, wanted, COSTS), simulate(written(bars, form), written(wanted, other), COSTS)
    assert same.trades.equals(ledger.trades)
    assert same.equity.equals(ledger.equity)
    many = simulate_many(written(bars, other), {"a": written(wanted, form), "b": wanted}, COSTS)
    assert many["a"].trades.equals(many["b"].trades)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(past=WRITTEN, closed=WRITTEN)
def test_a_session_takes_bars_in_any_form(served, past, closed):
    bundle, bars, since, _ = served
    session = Session(bundle, written(bars.filter(pl.col("time") < since), past))
    reported = session.step(written(bars.filter(pl.col("time") == since), closed))
    expected = bundle.predict(bars.filter(pl.col("time") <= since), since)
    assert reported.select("symbol", "time").equals(expected.select("symbol", "time"))
    np.testing.assert_allclose(reported["score"], expected["score"], rtol=0, atol=1e-6)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(form=WRITTEN)
def test_tables_digests_and_calendars_do_not_depend_on_how_time_is_written(make_walk_bars, form):
    bars = make_walk_bars(600, ("AAA", "BBB"))
    features = FeatureSet([HourOfDay("sine"), DayOfWeek("cosine")], max_gap_minutes=60)
    before, after = features.table(bars), features.table(written(bars, form))
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(after.time, before.time)
    for ask in (content_digest, bar_length, span, periods_per_year):
        assert ask(written(bars, form)) == ask(bars)
    assert utc_bars(written(bars, form)).equals(bars)


def test_a_store_keeps_the_moments_whatever_form_they_come_in(make_walk_bars, tmp_path):
    bars, store = make_walk_bars(100), BarStore(tmp_path)
    first = store.write("a", bars, {})
    second = store.write("b", written(bars, ("ns", "Asia/Tokyo")), {})
    assert first["digest"] == second["digest"]
    cut = bars["time"][40]
    read = [store.read("a", start=key) for key in keys(cut)]
    assert all(one.equals(read[0]) for one in read)
    assert read[0]["time"].min() > cut


def test_a_column_that_holds_no_times_is_refused(make_walk_bars):
    bars = make_walk_bars(50)
    for wrong in (bars.with_columns(pl.col("time").dt.date()), bars.with_columns(pl.col("time").cast(pl.String))):
        with pytest.raises(DataError, match="column 'time' is"):
            utc_bars(wrong)
