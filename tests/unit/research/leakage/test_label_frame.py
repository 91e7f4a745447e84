"""Which labels the audit compares: resolved ones, by the rule of samples."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl

from tests.vendor_forms.forms import random_bars
from tradsys.core.tables import Labels
from tradsys.evidence.controls.causality import frame_difference
from tradsys.research.leakage.lookahead import KEYS, label_frame

HORIZON = 3
PLAIN = SimpleNamespace(labels=SimpleNamespace())
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def label(bars: pl.DataFrame) -> Labels:
    """A label of somebody's own: whether the close rises; where too few bars are left, no class but the last row."""
    n, close = bars.height, bars["close"].to_numpy()
    end = np.minimum(np.arange(n) + HORIZON, n - 1)
    known = np.arange(n) + HORIZON < n
    ret = np.where(known, np.log(close[end] / close), np.nan)
    return Labels(y=np.where(known, (ret > 0).astype(int), -1), end=end, ret=ret, weight=known.astype(float))


def test_a_row_without_a_class_is_no_outcome_that_later_bars_could_change():
    """Cut after t, such rows end at t; with all bars they get a class after t: both say nothing at t."""
    bars = random_bars(40).with_columns(
        time=pl.Series([NOON + timedelta(hours=k) for k in range(40)]), symbol=pl.lit("A")
    )
    t = bars["time"][25]
    frames = [label_frame(PLAIN, some, label(some)) for some in (bars, bars.filter(pl.col("time") <= t))]
    assert [frame.height for frame in frames] == [40 - HORIZON, 26 - HORIZON]
    whole, cut = (frame.filter(pl.col("known") <= t) for frame in frames)
    assert frame_difference(whole, cut, KEYS) is None
