"""Books over dividends, funding, borrowing, thin bars and holes, worked by hand; compared series share their span."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tradsys.evidence.performance import performance
from tradsys.market.sessions import closes
from tradsys.market.tradable import holder_returns
from tradsys.portfolio.book import Book
from tradsys.portfolio.book_simulator import simulate_book
from tradsys.portfolio.costs import Costs
from tradsys.research.panel.books import BookSettings, run_books
from tradsys.research.pipeline.settings import Evaluation

FREE = Costs(0, 0)
START = datetime(2024, 1, 1, tzinfo=UTC)


def one_name(prices, symbol="AAA", **columns) -> pl.DataFrame:
    time = pl.Series([START + timedelta(days=k) for k in range(len(prices))], dtype=pl.Datetime("us", "UTC"))
    price = pl.Series(prices, dtype=pl.Float64)
    frame = pl.DataFrame({"symbol": [symbol] * len(prices), "time": time}).with_columns(
        open=price, high=price, low=price, close=price
    )
    return frame.with_columns(**{k: pl.Series(v, dtype=pl.Float64) for k, v in columns.items()})


def weights(bars, weight) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ["AAA"], "time": [bars["time"][0]], "weight": [weight]}).cast(
        {"time": pl.Datetime("us", "UTC")}
    )


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_dividend_leaves_the_book_where_it_was(weight):
    bars = one_name([100, 100, 90, 90], dividend_due=[0, 0, 10, 0])
    ledger = simulate_book(bars, weights(bars, weight), FREE)
    assert ledger.daily["equity"].to_list() == pytest.approx([1.0] * 4)
    assert ledger.daily["carry"].to_list() == pytest.approx([0, 0, weight * 0.1, 0])


def test_funding_and_borrow_fee_by_hand():
    """A short of 0.01 units from the second day on: 2 % of 100 comes in once, a 365th of 36.5 % goes out each day."""
    bars = one_name([100] * 4, funding_due=[0.5, 0, 0.02, 0])
    ledger = simulate_book(bars, weights(bars, -1.0), Costs(0, 0, borrow_bps_per_year=3650))
    assert ledger.daily["equity"].to_list() == pytest.approx([1, 0.999, 1.018, 1.017])


def test_the_return_of_a_holder_is_what_the_book_of_one_books():
    """One unit bought at 100 on the second day: its money from close to close over the close before."""
    bars = one_name([100, 100, 104, 99, 103], dividend_due=[0, 0, 0, 6, 0], funding_due=[0, 0, 0.03, 0, -0.02])
    equity = simulate_book(bars, weights(bars, 1.0), FREE).daily["equity"].to_numpy()
    found = holder_returns(bars)
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([0, 0.04 - 0.03 * 1.04, 1 / 104, 4 / 99 + 0.02 * 103 / 99])
    assert 100 * np.diff(equity) == pytest.approx(found[1:] * bars["close"].to_numpy()[:-1])


def test_the_day_of_a_close_at_midnight_is_the_one_that_it_ends():
    """Coins' days close at the next midnight: books, like the ledgers of strategies, date them by the day itself."""
    bars = one_name([100, 101, 102])
    days, _ = simulate_book(bars, weights(bars, 1.0), FREE).daily_returns()
    assert [str(day) for day in days] == ["2023-12-31", "2024-01-01", "2024-01-02"]


def test_what_a_thin_day_leaves_is_bought_on_the_next_and_an_untraded_day_fills_nothing():
    """10 units are wanted; half of 6 traded is 3; nothing trades on the third day; 7 are left for the fourth."""
    bars = one_name([100] * 5, volume=[50, 6, 0, 50, 50])
    ledger = simulate_book(bars, weights(bars, 1.0), Costs(0, 0, max_participation=0.5, capital=1000.0))
    assert ledger.orders["traded"].to_list() == pytest.approx([0.3, 0.7])
    assert ledger.orders["time"].to_list() == [bars["time"][1], bars["time"][3]]
    assert ledger.daily["gross"].to_list() == pytest.approx([0, 0.3, 0.3, 1, 1])


def test_years_are_of_the_time_that_passed():
    """A year of days, two missing, another year: 2 % growth a year is compounded over four."""
    days = np.datetime64("2020-01-01") + np.r_[np.arange(365), np.arange(3 * 365, 4 * 365)]
    returns = np.full(len(days), 1.08 ** (1 / len(days)) - 1)
    returns[400] = -0.01
    given = {"periods_per_year": 365.0, "trade_returns": np.zeros(0)}
    counted, passed = performance(returns, **given), performance(returns, days_T=days, **given)
    assert (counted["years"], passed["years"]) == (pytest.approx(2.0), pytest.approx(4.0, abs=0.01))
    assert passed["cagr"] == pytest.approx((1 + passed["total_return"]) ** 0.25 - 1, abs=1e-4)


def test_a_benchmark_that_begins_late_cuts_the_books_to_its_span():
    time = closes("XNYS", date(2022, 1, 3), date(2022, 12, 30))["close"].to_list()
    rng = np.random.default_rng(2)

    def name(symbol, steps):
        price = 100 * np.exp(np.cumsum(steps))
        volume = np.full(len(price), 1e6)
        return one_name(price, symbol, volume=volume).with_columns(time=pl.Series(time, dtype=pl.Datetime("us", "UTC")))

    own = [name(f"N{k}", rng.normal(0, 0.01, len(time))) for k in range(6)]
    market = name("SPY", np.full(len(time), 0.001)).tail(len(time) - 100)
    scores = pl.concat([frame.select("symbol", "time") for frame in own]).with_columns(
        score=pl.Series(rng.normal(size=6 * len(time))), horizon=pl.lit("1d"), probability=pl.lit(0.5)
    )
    found = run_books(
        pl.concat([*own, market]).sort("symbol", "time"),
        scores,
        BookSettings({"top": Book("top_k", k=2)}),
        horizon_bars={"1d": 1},
        skill_low={"1d": None},
        costs=FREE,
        evaluation=Evaluation(),
        market_symbol="SPY",
    )
    n = found["benchmark"]["performance"]["n_periods"]
    assert found["rows"][0]["performance"]["n_periods"] == n == len(time) - 100
    assert found["span"]["cut"] == {"top 1d": f"100 of {len(time)} closes left out"}
    first, last = time[100].date(), time[-1].date()
    assert found["span"]["words"] == (
        f"compared from {first} to {last}, the days that all have: hold SPY has closes from {first} to {last}; "
        f"cut to them: top 1d 100 of {len(time)} closes left out"
    )


def test_a_short_of_shares_without_known_dividends_is_left_out_unless_asked_for_and_named_price_only(caplog):
    """A price of 100 that opens at 90 is a loss or a dividend; without events no short is paid for it."""
    daily = one_name([100, 100, 90, 90])
    weekdays = daily.with_columns(time=pl.Series([datetime(2024, 1, d, 21, tzinfo=UTC) for d in (2, 3, 4, 5)]))
    weekdays = weekdays.cast({"time": pl.Datetime("us", "UTC")})
    left_out = simulate_book(weekdays, weights(weekdays, -1.0), FREE)
    assert left_out.daily["equity"][-1] == 1.0
    assert left_out.daily["n_short"].sum() == 0
    assert "1 shares were not sold short" in left_out.returns
    assert "are not sold short" in caplog.text
    caplog.clear()
    sold = simulate_book(weekdays, weights(weekdays, -1.0), FREE, price_only_shorts=True)
    assert sold.daily["equity"][-1] == pytest.approx(1.1)
    assert sold.returns == "price only, without dividends and funding"
    assert "too good by the yield" in caplog.text
    caplog.clear()
    known = weekdays.with_columns(dividend_due=pl.Series([0.0, 0, 10, 0]))
    assert simulate_book(known, weights(known, -1.0), FREE).returns.startswith("total return")
    simulate_book(weekdays, weights(weekdays, 1.0), FREE)
    assert not caplog.text


@pytest.mark.parametrize(("n_known", "n_sold"), [(0, 0), (1, 1), (2, 4), (4, 4)])
def test_one_known_dividend_does_not_speak_for_the_shares_beside_it(n_known, n_sold):
    """Half a year of four shares, a dividend of 10 each: those of which none is known earn it unless they are left out.

    Where most shares to be sold have one, the others are taken to pay none.
    """
    days = [t for k in range(190) if (t := datetime(2024, 1, 2, 21, tzinfo=UTC) + timedelta(days=k)).weekday() < 5]
    names = ["A", "B", "C", "D"]
    frames = [
        pl.DataFrame(
            {
                "symbol": [name] * len(days),
                "time": pl.Series(days, dtype=pl.Datetime("us", "UTC")),
                **dict.fromkeys(("open", "high", "low", "close"), [100.0] * 60 + [90.0] * (len(days) - 60)),
                "volume": [1e6] * len(days),
                "dividend_due": [10.0 if k == 60 and at < n_known else 0.0 for k in range(len(days))],
            }
        )
        for at, name in enumerate(names)
    ]
    bars = pl.concat(frames)
    targets = bars.filter(pl.col("time") == days[5]).select("symbol", "time", weight=pl.lit(-0.25))
    ledger = simulate_book(bars, targets, FREE)
    assert ledger.daily["n_short"].max() == n_sold
    if n_known == 1:
        assert ledger.daily["equity"][-1] == pytest.approx(1.0)
    made_up = simulate_book(bars.drop("dividend_due"), targets, FREE, dividends_known=True)
    assert made_up.daily["n_short"].max() == 4
