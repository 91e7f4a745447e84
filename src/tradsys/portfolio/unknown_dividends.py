"""Shares with unknown dividends are not sold short: a short owes the dividends and would look too good (0057)."""

import logging
from datetime import timedelta

import polars as pl

LOG = logging.getLogger(__name__)
FRIDAY = 5
QUARTER = timedelta(days=100)  # every share that pays has a dividend within it, with days to spare
UNSOLD = "shares were not sold short, their dividends are not known"


def unsold_shorts(returns: str) -> str:
    """Note in `BookLedger.returns` about shares that were not sold short.

    "" where every short was.
    """
    return returns.rpartition("; ")[2] if returns.endswith(UNSOLD) else ""


def shorts_without_dividends(bars: pl.DataFrame, weights: pl.DataFrame, *, sold: bool) -> pl.Series:
    """Shares to be sold short whose dividends are unknown.

    Their bars hold no dividend and are all on weekdays. Where most of the shares to be sold have a dividend, the others
    are taken to pay none; within less than a quarter one such share is enough.
    """
    short = weights.filter(pl.col("weight") < 0)["symbol"].unique().sort()
    if not len(short) or (bars["time"].dt.weekday() > FRIDAY).any():
        return short.clear()
    if "dividend_due" in bars.columns:
        paid = bars.filter(pl.col("dividend_due").fill_null(0) != 0)["symbol"].unique()
        bare = short.filter(~short.is_in(paid.implode()))
        brief = bars["time"].max() - bars["time"].min() < QUARTER  # type: ignore[operator]
        short = short.clear() if (brief and len(paid)) or 2 * len(bare) <= len(short) else bare
    elif "funding_due" in bars.columns:
        return short.clear()
    if short.is_empty():
        return short
    LOG.warning(
        "book: no dividend is known of shares that are to be sold short, and a short owes each: %d (%s) %s; fetch them "
        "(actions=FILE, or files with adjusted closes)",
        len(short),
        ", ".join(short.head(5)),
        "are held short, so these returns are price only, too good by the yield"
        if sold
        else "are not sold short; price_only_shorts=true sells them, at returns too good by the yield",
    )
    return short
