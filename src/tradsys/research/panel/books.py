"""Backtests a panel's forecasts as books: every book on every horizon, with a benchmark and a verdict each."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypedDict

import numpy as np
import polars as pl

from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.evidence.deflation import deflation_of_returns
from tradsys.evidence.joint_test import JointTest
from tradsys.evidence.performance import Performance, performance
from tradsys.evidence.track_record.passive import beyond_passive
from tradsys.evidence.verdict import verdict_of_strategy
from tradsys.market.calendars import days_in_a_year, session_of
from tradsys.market.events.actions import returns_basis
from tradsys.market.tradable import holder_returns
from tradsys.portfolio.book import Book, hold
from tradsys.portfolio.book_simulator import BookLedger, simulate_book
from tradsys.portfolio.capacity import capacity
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.unknown_dividends import unsold_shorts
from tradsys.research.pipeline.backtesting import record_trials, trials_on_span
from tradsys.research.pipeline.records.rows import EquityCurves
from tradsys.research.pipeline.settings import Evaluation
from tradsys.research.pipeline.span_test import joint_tests_alone, joint_tests_on_span
from tradsys.research.pipeline.trial_ledger import TrialLedger

LOG = logging.getLogger(__name__)
N_NAMED = 3  # series spelled out where spans differ
LONG = 0.5  # mean net exposure from which a book is an alternative to holding the market


@dataclass(frozen=True)
class BookSettings:
    """Which books are run, the delisting rule, and the capacity limits.

    books: by name; each is held for its horizon, whatever its own hold_bars. dead_after_bars, delisting_return:
    deprecated names of `costs.dead_after_bars` and `costs.delisting_return`, which apply where these are None; until
    2.0. capacity_share: of a name's mean dollar volume over volume_bars that an order may take; capacity_quantile: the
    part of traded notional that must fit. price_only_shorts: sell shares short although their dividends are unknown,
    at returns too good by the yield. Raises TradsysError without a book or out of range.
    """

    books: Mapping[str, Book]
    dead_after_bars: int | None = None
    delisting_return: float | None = None
    capacity_share: float = 0.01
    volume_bars: int = 20
    capacity_quantile: float = 0.95
    price_only_shorts: bool = False

    def __post_init__(self) -> None:
        if not self.books or not 0 < self.capacity_share <= 1 or not 0 < self.capacity_quantile <= 1:
            raise TradsysError(
                f"books: {list(self.books)}, capacity_share={self.capacity_share}, capacity_quantile="
                f"{self.capacity_quantile}; one book at least, shares in (0, 1]; fix conf/book"
            )

    def delisting_rule(self, costs: Costs) -> Json:
        """`dead_after_bars` and `delisting_return` of every book.

        Those of the costs, unless the old keys are set.
        """
        rule: Json = {}
        for key in ("dead_after_bars", "delisting_return"):
            own = getattr(self, key)
            if own is not None:
                LOG.warning(
                    "books: book.%s=%s is set; its new name is costs.%s, the old one is removed in 2.0", key, own, key
                )
            rule[key] = getattr(costs, key) if own is None else own
        return rule


@dataclass(frozen=True, eq=False)
class LedgerContext:
    """Where every evaluation of the span is recorded before its result.

    The ledger, and the source of the data. source: as of `provenance.provenance`. run: the folder that holds the run.
    """

    ledger: TrialLedger
    source: Mapping[str, Any]
    run: str


def run_books(
    bars: pl.DataFrame,
    predictions: pl.DataFrame,
    settings: BookSettings,
    *,
    horizon_bars: Mapping[str, int],
    skill_low: Mapping[str, float | None],
    costs: Costs,
    evaluation: Evaluation,
    market_symbol: str | None = None,
    calendar: str | None = None,
    context: LedgerContext | None = None,
    seed: int = 0,
    made_up: bool = False,
) -> Json:
    """Every book on every horizon's raw scores, ready for JSON.

    Rows, benchmark, equity, deflation. predictions: as of `walk_forward`, also of members with an unresolved label.
    horizon_bars, skill_low: by horizon; the latter the lower bound of the log-loss skill, None where unknown. context:
    None deflates by these books alone, which is too lenient where others were tried before. calendar: the exchange's,
    as of `days_in_a_year`. made_up: the market is synthetic and pays no dividends, so that shorts of shares owe none.

    Books and benchmark are compared on the days that all have: `span` holds first, last, in `cut` what was left out of
    which, in `words` the series that caused it; every figure of `performance` is of that span, equity curves begin at
    1.

    rows: name, horizon, settings, unsold (shares that were not sold short, as text), performance (as of
    `evidence.performance`, closed rounds its trades), capacity, n_died (delisted), verdict, behind (a sentence where it
    has an edge and earned less than the benchmark). benchmark: name and
    performance of holding the market's symbol, None without one. equity: time and curves of the days that all share.
    Raises DataError where a book's days lack bars.
    """
    death = settings.delisting_rule(costs)
    costs = replace(costs, **death)
    ledgers, holding = _simulated(bars, predictions, settings, horizon_bars, costs, made_up=made_up)
    span = (predictions["time"].min(), predictions["time"].max())
    held = _benchmark(bars, market_symbol, span, costs)  # type: ignore[arg-type]
    reference = f"hold {market_symbol}"
    shown = ledgers if held is None else ledgers | {reference: held}
    shown, compared = _shared_span(shown)
    yearly = days_in_a_year(next(iter(ledgers.values())).daily["time"], calendar)
    deflation = _deflation(ledgers, context, span, yearly)  # type: ignore[arg-type]
    shared: dict[str, Any] = {"evaluation": evaluation, "yearly": yearly, "deflation": deflation}
    market = _members_mean(bars, predictions)
    tests = _tests(market, ledgers, context, span, max(horizon_bars.values()), seed)  # type: ignore[arg-type]
    rows: list[Json] = [
        {
            "name": name,
            "horizon": horizon,
            "settings": f"{book.kind}, k={book.k}, held {book.hold_bars} bars",
            "unsold": unsold_shorts(ledgers[name].returns),
            "performance": (row := _performance(shown[name], min_block=book.hold_bars, **shared)),
            "capacity": _capacity(bars, ledgers[name], settings),
            "n_died": ledgers[name].n_died,
            "verdict": verdict_of_strategy(
                row, tests[name], skill_low=skill_low.get(horizon), min_trades=evaluation.min_trades
            ).as_dict(),
        }
        for name, (book, horizon) in holding.items()
    ]
    benchmark: Json | None = None
    traded = bars.filter(pl.col("symbol").is_in(predictions["symbol"].unique().implode()))
    if held is not None:
        benchmark = {
            "name": reference,
            "returns": returns_basis(bars.filter(pl.col("symbol") == market_symbol)),
            "performance": _performance(shown[reference], min_block=1, min_trades=0, **shared),
        }
        for line in rows:
            line["behind"] = _behind(line, benchmark, float(shown[line["name"]].daily["net"].mean()))  # type: ignore[arg-type]
    return {
        "rows": rows,
        "benchmark": benchmark,
        "equity": _equity(shown),
        "span": compared,
        "deflation": deflation,
        "costs": costs.as_dict(bars.columns, returns_basis(traded)),
        "periods_per_year": yearly,
    }


def _behind(row: Json, benchmark: Json, net: float) -> str:
    """A sentence where a long book has an edge and still earned less than holding the market's symbol; else empty.

    The edge is over the mean of all members, which may have earned less than that symbol. net: its mean net exposure.
    """
    own, held = (one["performance"]["total_return"] for one in (row, benchmark))
    if row["verdict"]["kind"] != "edge" or net < LONG or own >= held:
        return ""
    return (
        f"it earned {100 * own:.1f} % where `{benchmark['name']}` earned {100 * held:.1f} %: the edge is over the "
        "mean of all members"
    )


def _simulated(
    bars: pl.DataFrame,
    predictions: pl.DataFrame,
    settings: BookSettings,
    horizon_bars: Mapping[str, int],
    costs: Costs,
    *,
    made_up: bool,
) -> tuple[dict[str, BookLedger], dict[str, tuple[Book, str]]]:
    """The ledger of every book and horizon, and its book and horizon."""
    ledgers, holding = {}, {}
    for horizon in predictions["horizon"].unique(maintain_order=True):
        scores = predictions.filter(pl.col("horizon") == horizon)
        # a book sees no bar after its last decision: it has no prediction there
        traded = bars.filter(pl.col("time").is_between(scores["time"].min(), scores["time"].max()))
        for name, book in settings.books.items():
            chosen = replace(book, hold_bars=horizon_bars[horizon])
            full = f"{name} {horizon}"
            shorts = {"price_only_shorts": settings.price_only_shorts, "dividends_known": made_up}
            ledgers[full] = _simulated_book(traded, chosen.weights(scores), costs, **shorts)
            holding[full] = (chosen, horizon)
    if not ledgers:
        raise DataError("books: no predictions; a book needs scores; run walk_forward over days with bars")
    return ledgers, holding


def _capacity(bars: pl.DataFrame, ledger: BookLedger, settings: BookSettings) -> dict[str, float | None]:
    return capacity(
        bars,
        ledger,
        share=settings.capacity_share,
        volume_bars=settings.volume_bars,
        quantile=settings.capacity_quantile,
    )


def _simulated_book(bars: pl.DataFrame, weights: pl.DataFrame, costs: Costs, **shorts: bool) -> BookLedger:
    return simulate_book(
        bars,
        weights,
        costs,
        dead_after_bars=costs.dead_after_bars,
        delisting_return=costs.delisting_return,
        **shorts,
    )


def _benchmark(
    bars: pl.DataFrame, symbol: str | None, span: tuple[datetime, datetime], costs: Costs
) -> BookLedger | None:
    """The market's symbol bought at the first decision of the span and held; None without one."""
    if symbol is None:
        return None
    traded = bars.filter(pl.col("time").is_between(*span), pl.col("symbol") == symbol)
    return _simulated_book(traded, hold(traded, symbol), costs)


class SharedSpan(TypedDict):
    """Days on which all series are compared.

    cut: what was left out of which. words: the cause, "" without a cut.
    """

    first: str
    last: str
    cut: dict[str, str]
    words: str


def _shared_span(ledgers: Mapping[str, BookLedger]) -> tuple[dict[str, BookLedger], SharedSpan]:
    """The ledgers cut to the closes from the latest first to the earliest last, and what that left out of which."""
    first = max(ledger.daily["time"][0] for ledger in ledgers.values())
    last = min(ledger.daily["time"][-1] for ledger in ledgers.values())
    cut = {name: ledger.between(first, last) for name, ledger in ledgers.items()}
    if first >= last:
        spans = {
            name: f"{x.daily['time'][0]:%Y-%m-%d} to {x.daily['time'][-1]:%Y-%m-%d}" for name, x in ledgers.items()
        }
        raise DataError(f"books: no span that all share: {spans}; compared series share their days; load earlier bars")
    lost = {name: ledgers[name].daily.height - cut[name].daily.height for name in ledgers}
    words = {name: f"{n} of {ledgers[name].daily.height} closes left out" for name, n in lost.items() if n}
    span: SharedSpan = {"first": str(session_of(first)), "last": str(session_of(last)), "cut": words, "words": ""}
    return cut, {**span, "words": _cut_in_words(ledgers, span)}


def _cut_in_words(ledgers: Mapping[str, BookLedger], span: SharedSpan) -> str:
    """A sentence on series that begin late or end early, and the days cut from the others; "" without a cut."""
    if not span["cut"]:
        return ""
    own = {name: tuple(str(session_of(x.daily["time"][k])) for k in (0, -1)) for name, x in ledgers.items()}
    first, last = min(a for a, _ in own.values()), max(b for _, b in own.values())
    short = [f"{name} has closes from {a} to {b}" for name, (a, b) in own.items() if a > first or b < last]
    lost = [f"{name} {n}" for name, n in span["cut"].items()]
    more = f" and of {len(lost) - N_NAMED} more" if len(lost) > N_NAMED else ""
    named = ", ".join(lost[:N_NAMED]) + more
    return (
        f"compared from {span['first']} to {span['last']}, the days that all have: "
        f"{'; '.join(short[:N_NAMED])}; cut to them: {named}"
    )


def _deflation(
    ledgers: Mapping[str, BookLedger], context: LedgerContext | None, span: tuple[datetime, datetime], yearly: float
) -> dict[str, float | None]:
    """Number and variance of the trials that a Sharpe ratio is deflated by: all on this span, these included."""
    if context is not None:
        record_trials(context.ledger, ledgers, context.source, context.run, span, yearly)
        return trials_on_span(context.ledger, context.source["data"]["digest"], span, yearly)[0]
    daily = [one.daily_returns() for one in ledgers.values()]
    return deflation_of_returns([days for days, _ in daily], [ret for _, ret in daily]).as_dict()


def _members_mean(bars: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """Mean return at each close of the names that books could hold: time, market.

    Names with a forecast at their close before, and no others: a book of all of them must be no better than it. They
    receive dividends and pay funding, as in the books.
    """
    decided = predictions.select("symbol", "time").unique()
    moved = bars.select("symbol", "time", market=pl.Series(holder_returns(bars), nan_to_null=True)).with_columns(
        before=pl.col("time").shift(1).over("symbol")
    )
    held = moved.join(decided, left_on=["symbol", "before"], right_on=["symbol", "time"], how="semi")
    return held.group_by("time").agg(pl.col("market").mean().fill_null(0.0))


def _tests(
    mean: pl.DataFrame,
    ledgers: Mapping[str, BookLedger],
    context: LedgerContext | None,
    span: tuple[datetime, datetime],
    hold_bars: int,
    seed: int,
) -> dict[str, JointTest]:
    """The joint test of every book's returns beyond its average net exposure in that mean of all members."""
    days = pl.concat([ledger.daily.select("time") for ledger in ledgers.values()]).unique().sort("time")
    market = days.join(mean, on="time", how="left", maintain_order="left")
    beyond = {}
    for name, ledger in ledgers.items():
        own = ledger.daily.select("time", "ret", "net")
        both = market.join(own, on="time", how="left", maintain_order="left").fill_null(0.0)
        # a book's holdings over a day were decided at the previous close
        exposed = both["net"].shift(1).fill_null(0.0).to_numpy()
        beyond[name] = beyond_passive(both["ret"].to_numpy(), exposed, both["market"].to_numpy())
    if context is None:
        return joint_tests_alone(beyond, min_block=float(hold_bars), seed=seed)
    returns = {name: ledger.daily_returns()[1] for name, ledger in ledgers.items()}
    digest = context.source["data"]["digest"]
    return joint_tests_on_span(context.ledger, digest, span, returns, beyond, min_block=float(hold_bars), seed=seed)


def _performance(
    ledger: BookLedger,
    *,
    min_block: float,
    min_trades: int | None = None,
    evaluation: Evaluation,
    yearly: float,
    deflation: Mapping[str, Any],
) -> Performance:
    column = {name: ledger.daily[name].to_numpy() for name in ("ret", "gross", "turnover", "cost")}
    return performance(
        column["ret"],
        periods_per_year=yearly,
        trade_returns=ledger.trades["net_return"].to_numpy(),
        trade_spans=(ledger.trades["entry_time"].to_numpy(), ledger.trades["exit_time"].to_numpy()),
        days_T=ledger.daily_returns()[0],
        n_open_trades=ledger.n_open,
        exposure_T=column["gross"],
        turnover_T=column["turnover"],
        costs_T=column["cost"],
        min_trades=evaluation.least_trades if min_trades is None else min_trades,
        min_block=float(min_block),
        confidence=evaluation.confidence,
        **deflation,
    )


def _equity(ledgers: Mapping[str, BookLedger]) -> EquityCurves:
    """Daily equity of every curve on one list of dates; flat at 1 before a curve begins, at its last after it ends."""
    days: Array = np.unique(np.concatenate([ledger.daily_returns()[0] for ledger in ledgers.values()]))
    curves = {}
    for name, ledger in ledgers.items():
        own, ret = ledger.daily_returns()
        step = np.ones(len(days))
        step[np.searchsorted(days, own)] = 1 + ret
        curves[name] = np.cumprod(step).tolist()
    return {"time": [str(day) for day in days], "curves": curves}
