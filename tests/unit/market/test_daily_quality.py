"""Each warning, planted alone in clean sessions, comes once, with its count; and the real files' known defects."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from tests.conftest import walk_bars
from tradsys.market.daily_quality import warnings
from tradsys.market.sessions import closes
from tradsys.market.sources.files import read
from tradsys.market.store import BarStore

FIRST, LAST = date(2021, 1, 4), date(2021, 12, 31)
PRICES = ["open", "high", "low", "close"]


def clean():
    close = closes("XNYS", FIRST, LAST)["close"]
    return pl.concat([walk_bars(len(close), (s,)).with_columns(time=close) for s in ("AAA", "BBB", "SPY")])


def of(symbol, first, last):
    """Rows of a symbol by number."""
    row = pl.int_range(pl.len()).over("symbol")
    return (pl.col("symbol") == symbol) & row.is_between(first, last)


def scaled(first, factor, last=10_000):
    return lambda b: b.with_columns(
        pl.when(of("BBB", first, last)).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in PRICES
    )


def put(first, last, **values):
    return lambda b: b.with_columns(
        pl.when(of("BBB", first, last)).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in values.items()
    )


def copied(bars):
    """The bar of row 50 once more on the session after."""
    row = bars.filter(of("BBB", 50, 50)).row(0, named=True)
    return put(51, 51, **{name: row[name] for name in (*PRICES, "volume")})(bars)


def gone(first, last):
    return lambda b: b.filter(~of("BBB", first, last))


def late_close(bars):
    moved = pl.when(of("BBB", 9, 9)).then(pl.col("time") + timedelta(minutes=30)).otherwise("time")
    return bars.with_columns(time=moved)


PLANTED = {
    "price_not_positive": (put(20, 21, low=0.0), 2),
    "split_like_jump": (scaled(60, 0.25), 1),
    "open_far_from_close": (scaled(60, np.exp(-0.9)), 1),  # at 41 % of the close before: no split's ratio
    "copied_bar": (copied, 1),
    "stale_price": (put(30, 34, open=90.0, high=90.0, low=90.0, close=90.0), 5),
    "no_volume": (put(30, 32, volume=0.0), 3),
    "vanished_symbol": (gone(200, 400), 1),
    "missing_session": (gone(100, 102), 3),
    "not_a_session": (late_close, 1),
    "short_history": (gone(0, 99), 1),
}


@pytest.mark.parametrize("seed", range(4))
def test_missing_sessions_are_those_of_a_loop_over_each_symbol(seed):
    rng = np.random.default_rng(seed)
    bars = clean()
    bars = bars.filter(pl.Series(rng.random(bars.height) < rng.choice([0.5, 0.99])))
    calendar, holes = closes("XNYS", FIRST, LAST)["session"].to_list(), {}
    for (symbol,), part in bars.partition_by("symbol", as_dict=True).items():
        own = sorted(time.date() for time in part["time"])
        for before, after in pairwise(own):
            holes[symbol, before] = sum(before < day < after for day in calendar)
    holes = {key: n for key, n in holes.items() if n}
    found = {f.kind: f for f in warnings(bars, "XNYS", LAST)}["missing_session"]
    assert found.count == sum(holes.values())
    assert found.note == f"of {len({symbol for symbol, _ in holes})} symbols"
    (symbol, _), n = min(holes.items(), key=lambda item: (-item[1], item[0]))
    assert found.examples[0].startswith(f"{symbol} {n} after ")
    assert max(holes.values()) == n


def test_clean_sessions_ask_for_nothing():
    assert warnings(clean(), "XNYS", LAST) == []


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_defect_is_named_alone(kind):
    damage, count = PLANTED[kind]
    found = warnings(damage(clean()), "XNYS", LAST)
    assert [(f.kind, f.count) for f in found] == [(kind, count)]
    assert "BBB" in found[0].examples[0]


@pytest.mark.parametrize("factor", [1 / 2, 1 / 3, 1 / 10, 2.0, 2 / 3])
def test_splits_either_way_look_like_splits(factor):
    assert [f.kind for f in warnings(scaled(60, factor)(clean()), "XNYS", LAST)] == ["split_like_jump"]


def test_a_crash_of_a_third_within_the_day_is_no_split():
    def crash(bars):
        fallen = scaled(61, 0.6)(bars)
        return fallen.with_columns(
            pl.when(of("BBB", 60, 60)).then(pl.col(name) * 0.6).otherwise(pl.col(name)).alias(name)
            for name in ("low", "close")
        )

    assert warnings(crash(clean()), "XNYS", LAST) == []


def test_four_flat_sessions_are_not_stale_and_runs_end_with_their_symbol():
    flat = put(30, 33, open=90.0, high=90.0, low=90.0, close=90.0)(clean())
    assert warnings(flat, "XNYS", LAST) == []
    ends = pl.col("symbol").is_in(["AAA", "BBB"]) & (pl.int_range(pl.len()).over("symbol") >= 249)
    starts = (pl.col("symbol") == "BBB") & (pl.int_range(pl.len()).over("symbol") < 2)
    level = clean().with_columns(pl.when(ends | starts).then(90.0).otherwise(pl.col(n)).alias(n) for n in PRICES)
    assert warnings(level, "XNYS", LAST) == [], "three at AAA's end and two at BBB's start are no run of five"


def test_a_file_older_than_the_calendar_says_how_many_sessions():
    found = warnings(clean(), "XNYS", date(2022, 1, 5))
    assert [(f.kind, f.count) for f in found] == [("old_data", 3)]
    assert found[0].examples == ("last session 2021-12-31, the calendar's is 2022-01-05",)
    assert [f.kind for f in warnings(clean(), "XNYS")] == ["old_data"], "by default: the last session closed by now"
    assert [f.kind for f in warnings(clean().clear(), "XNYS", LAST)] == ["no_bars"]


def test_vanished_symbols_come_newest_first():
    bars = clean()
    bars = bars.filter(~(of("AAA", 50, 400) | of("BBB", 240, 400)))
    (found,) = warnings(bars, "XNYS", LAST)
    assert (found.kind, found.count) == ("vanished_symbol", 2)
    assert [text[:3] for text in found.examples] == ["BBB", "AAA"]


LATE = ("CARR", "CDAY", "CEG", "CTVA", "DOW", "FOX", "FOXA", "GEHC", "MRNA", "OGN", "OTIS")


def test_the_real_names_known_defects(shared_data, tmp_path):
    """A special dividend, a name before its listing, short histories, and a session that was never held."""
    path = tmp_path / "names.parquet"
    chosen = pl.col("symbol").is_in([*LATE, "AAPL", "AMCR", "KDP", "MSFT"])
    pl.read_parquet(shared_data / "equities" / "sp500_daily.parquet").filter(chosen).write_parquet(path)
    bars = read(path, "yahoo", calendar="XNYS", repair=["drop_non_sessions", "accept_jumps"]).bars
    found = {f.kind: f for f in warnings(bars, "XNYS", date(2022, 12, 30))}
    assert {kind: f.count for kind, f in found.items()} == {
        "split_like_jump": 1,
        "copied_bar": 2,
        "stale_price": 230,
        "no_volume": 232,
        "short_history": len(LATE),
    }
    assert found["split_like_jump"].examples[0].startswith("KDP 2018-07-10")
    for kind in ("copied_bar", "stale_price", "no_volume"):
        assert all(text.startswith("AMCR 20") for text in found[kind].examples)
    held = read(path, "yahoo", repair=["accept_jumps"], session_close="21:00").bars
    copies = {f.kind: f for f in warnings(held, "XNYS", date(2022, 12, 30))}["copied_bar"]
    assert copies.count == 2 + 14, "Juneteenth 2022, for every name but GEHC, which was not listed yet"


def test_stored_bars_are_judged_as_they_are(tmp_path):
    BarStore(tmp_path).write("days", clean(), {})
    assert warnings(BarStore(tmp_path).read("days"), "XNYS", LAST) == []
