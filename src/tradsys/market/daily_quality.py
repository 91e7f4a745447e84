"""Warnings about stored bars for the readers of a daily run; no row is changed."""

from collections.abc import Iterable
from datetime import date, timedelta

import numpy as np
import polars as pl

from tradsys.core.tables import Array
from tradsys.market.bars import PRICES, Finding, examples, in_order, starts_of_symbols
from tradsys.market.calendars import session_date
from tradsys.market.events.corporate_actions import split_like
from tradsys.market.sessions import closes, last_closed
from tradsys.market.sources.jumps import MAX_OPEN_GAP, same_symbol
from tradsys.market.sources.quality import REGULAR_WEEKDAY_SHARE, Context, flat_copies, presentable

CLOSURE = timedelta(days=4, hours=12)  # the longest regular pause of an exchange
STALE_RUN = 5  # sessions in a row with one price and no range: not seen in a name that trades
SPLITS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0, 1.5)
WIDE = 1.4  # factor from the close before beyond which an open is compared with splits; below all of them
SPLIT_TOLERANCE = 0.03  # log distance from a split's ratio: the move of the day itself


def warnings(bars: pl.DataFrame, calendar: str, session: date | None = None) -> list[Finding]:
    """Findings by name, worst first; empty without any.

    session: the session that the data should reach; by default the calendar's last closed one.
    old_data: the last session is older. price_not_positive: a price of zero or less, or none. split_like_jump: an open
    at 1/2, 1/3, ... 2, 3 ... of the close before, or near such a ratio with a volume that jumps by it for good.
    open_far_from_close: an open a factor of 1.9 or more away otherwise. copied_bar: prices and volume of the previous
    bar repeated. stale_price: five sessions or more of one price without
    range. no_volume: nothing traded. vanished_symbol: no bar on the last session. missing_session: sessions between a
    symbol's first and last without a bar. not_a_session: bars at no session's close. short_history: a first bar after
    the data's own first session.
    """
    if bars.is_empty():
        return [Finding("no_bars", 0, (), "there is nothing to check")]
    wanted = last_closed(calendar) if session is None else session
    ordered = bars if in_order(bars) else bars.sort("symbol", "time")
    rows = ordered.with_columns(session=session_date())
    starts = starts_of_symbols(rows)
    ends = np.append(starts[1:], rows.height) - 1
    lives = rows.select("symbol", first="session")[starts].with_columns(last=rows["session"].gather(ends))
    vanished, late = pl.col("last") < lives["last"].max(), pl.col("first") > lives["first"].min()
    found = [
        _old_data(rows, wanted, calendar),
        *_row_findings(rows),
        _by_symbol(lives, "vanished_symbol", vanished, "last bar on {}", "last", newest=True),
        _missing(rows, calendar),
        _off_calendar(rows, calendar),
        _by_symbol(lives, "short_history", late, "first bar on {}", "first"),
    ]
    return [finding for finding in found if finding is not None and finding.count]


def _old_data(rows: pl.DataFrame, wanted: date, calendar: str) -> Finding | None:
    last: date = rows["session"].max()  # type: ignore[assignment]
    if last >= wanted:
        return None
    behind = closes(calendar, last + timedelta(days=1), wanted).height
    return Finding("old_data", behind, (f"last session {last}, the calendar's is {wanted}",), "sessions behind")


def _row_findings(rows: pl.DataFrame) -> Iterable[Finding]:
    """Findings from a row and its predecessor."""
    priced = rows.select(pl.all_horizontal(pl.col(name) > 0 for name in PRICES).fill_null(value=False)).to_series()
    gap = _open_gap(rows)
    split = _near_a_split(gap) | (split_like(rows) != 1)
    masks = {
        "price_not_positive": (~priced.to_numpy(), ""),
        "split_like_jump": (split, "typical of a split or special dividend; a crash can open at any price"),
        "open_far_from_close": ((np.abs(gap) > MAX_OPEN_GAP) & ~split, ""),
        "copied_bar": (_copied(rows), "prices and volume of the bar before"),
        "stale_price": (_stale(rows), f"{STALE_RUN} sessions or more without a move"),
        "no_volume": ((rows["volume"] == 0).fill_null(value=False).to_numpy(), ""),
    }
    for kind, (mask, note) in masks.items():
        hits = rows.filter(pl.Series(mask))
        yield Finding(kind, hits.height, examples(hits), note)


def _near_a_split(gap: Array) -> Array:
    """True [n] where a log gap lies within SPLIT_TOLERANCE of a ratio of SPLITS, either way."""
    near = np.abs(gap) > np.log(min(SPLITS)) - SPLIT_TOLERANCE
    near[near] = np.abs(np.abs(gap[near])[:, None] - np.log(SPLITS)).min(axis=1) < SPLIT_TOLERANCE
    return near


def _open_gap(rows: pl.DataFrame) -> Array:
    """Log of open over the close before [n] where it is wide; 0 elsewhere, at a first bar and without a positive price.

    Wide is more than a factor of WIDE either way.
    """
    opened, closed = rows["open"].to_numpy(), rows["close"].to_numpy()
    gap = np.zeros(rows.height)
    with np.errstate(divide="ignore", invalid="ignore"):
        times = opened[1:] / closed[:-1]
        wide = np.flatnonzero(((times > WIDE) | (times < 1 / WIDE)) & same_symbol(rows)[1:])
        found = np.log(opened[wide + 1]) - np.log(closed[wide])
    gap[wide + 1] = np.where(np.isfinite(found), found, 0.0)
    return gap


def _copied(rows: pl.DataFrame) -> Array:
    """True [n] at bars that traded and yet equal the bar before in every number."""
    same = same_symbol(rows) & (rows["volume"] > 0).fill_null(value=False).to_numpy()
    for name in (*PRICES, "volume"):
        value = rows[name].to_numpy()
        same[1:] &= value[1:] == value[:-1]
    return same


def _stale(rows: pl.DataFrame) -> Array:
    """True [n] inside runs of STALE_RUN bars or more of one symbol at one price without range."""
    close = rows["close"].to_numpy()
    flat = (rows["high"] == rows["low"]).fill_null(value=False).to_numpy()
    goes_on = np.zeros(rows.height, dtype=bool)
    goes_on[1:] = same_symbol(rows)[1:] & flat[1:] & flat[:-1] & (close[1:] == close[:-1])
    run = np.cumsum(~goes_on) - 1
    return np.asarray(flat & (np.bincount(run)[run] >= STALE_RUN))


def _by_symbol(
    lives: pl.DataFrame, kind: str, mask: pl.Expr, words: str, shown: str, *, newest: bool = False
) -> Finding | None:
    """One count per symbol, by its first and last session."""
    hits = lives.filter(mask).sort([shown, "symbol"], descending=[newest, False])
    texts = tuple(f"{row['symbol']} {words.format(row[shown])}" for row in hits.head(3).iter_rows(named=True))
    return Finding(kind, hits.height, texts) if hits.height else None


def _missing(rows: pl.DataFrame, calendar: str) -> Finding | None:
    """(symbol, session) pairs without a bar, counted by ordinals rather than by joining every pair."""
    sessions = closes(calendar, rows["session"].min(), rows["session"].max())["session"]  # type: ignore[arg-type]
    if sessions.is_empty():
        return None
    day, own = rows["session"].to_physical().to_numpy(), sessions.to_physical().to_numpy()
    ordinal = np.full(int(day.max() - day.min()) + 1, -1)
    ordinal[own - day.min()] = np.arange(len(own))
    k = ordinal[day - day.min()]
    placed = np.flatnonzero(k >= 0)
    symbol = np.cumsum(~same_symbol(rows))[placed]
    skipped = np.diff(k[placed]) - 1
    at = np.flatnonzero((skipped > 0) & (np.diff(symbol) == 0))
    if not len(at):
        return None
    holes = rows.select("symbol", before="session")[placed[at]].with_columns(n=pl.Series(skipped[at]))
    longest = holes.sort("n", "symbol", descending=[True, False]).head(3)
    texts = tuple(f"{r['symbol']} {r['n']} after {r['before']}" for r in longest.iter_rows(named=True))
    return Finding("missing_session", int(holes["n"].sum()), texts, f"of {holes['symbol'].n_unique()} symbols")


def _off_calendar(rows: pl.DataFrame, calendar: str) -> Finding | None:
    """Bars whose time is not the close of their date's session."""
    sessions = closes(calendar, rows["session"].min(), rows["session"].max())  # type: ignore[arg-type]
    placed = rows.join(sessions, on="session", how="left", maintain_order="left")
    hits = placed.filter(pl.col("close_right").is_null() | (pl.col("close_right") != pl.col("time")))
    return Finding("not_a_session", hits.height, examples(hits), f"of {calendar}") if hits.height else None


def remarks(rows: pl.DataFrame, context: Context) -> list[Finding]:
    """Findings that refuse nothing: flat bars, extreme wicks, holes, dividends."""
    series = presentable(rows)
    body = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    kinds = {
        "flat_bar_without_volume": pl.lit(pl.Series(flat_copies(series))),
        "extreme_wick": (pl.col("high") > 3 * body[0]) | (pl.col("low") * 3 < body[1]),
        "hole": None,
        "weekend_bar": (pl.col("stamp").dt.weekday() >= 6) & context.daily & (not context.length.monthly),
        "split_like_jump": pl.lit(pl.Series(split_like(series) != 1)),
        "not_adjusted_for_dividends": (pl.col("adj_close") / pl.col("close") - 1).abs() > 1e-9,
    }
    found = []
    for kind, mask in kinds.items():
        hits = series.filter(mask) if mask is not None else series.clear()
        found.append(_holes(series, context) if mask is None else Finding(kind, hits.height, examples(hits)))
    return [finding for finding in found if finding.count]


def _holes(series: pl.DataFrame, context: Context) -> Finding:
    """Steps longer than the usual one of that symbol, all counted, the longest first.

    On a market that is open on weekends the usual step is the bar length. Otherwise nights, weekends and holidays of up
    to four days are no holes, but a longer step within one day is.
    """
    every = pl.lit(context.length.every + (timedelta(days=1) if context.length.monthly else timedelta(0)))
    slack = timedelta(hours=1) if context.daily else timedelta(0)
    shortest = pl.min_horizontal(CLOSURE, every + slack)
    weekend = (pl.col("stamp").dt.weekday() >= 6).mean().over("symbol")
    same = pl.col("symbol") == pl.col("symbol").shift(1)
    step = pl.when(same).then(pl.col("stamp").diff())
    if not series.select((step > shortest).any()).item():
        return Finding("hole", 0, ())
    closure = pl.max_horizontal(pl.lit(CLOSURE), every) if not context.length.monthly else every
    rests = (weekend < REGULAR_WEEKDAY_SHARE) & (pl.col("stamp").dt.date() != (pl.col("stamp") - step).dt.date())
    marked = series.select("symbol", "stamp", step=step, rests=rests)
    hits = marked.filter(pl.col("step") > pl.when("rests").then(closure).otherwise(every + slack))
    longest = hits.sort("step", "symbol", descending=[True, False]).head(3)
    texts = tuple(
        f"{row['symbol']} {row['step']} from {row['stamp'] - row['step']:%Y-%m-%d %H:%M} on"
        for row in longest.iter_rows(named=True)
    )
    return Finding("hole", hits.height, texts, "the longest first" if hits.height > 1 else "")
