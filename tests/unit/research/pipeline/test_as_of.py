"""When a label is known: at the close of its last bar, or once the delisting that ended it is."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from tradsys.evidence.controls.causality import frame_difference
from tradsys.labels.forward_return import ForwardReturn
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.research.leakage.lookahead import KEYS, label_frame
from tradsys.research.pipeline.as_of import known_by, known_times
from tradsys.research.pipeline.dataset import outcomes_of

LAST, PATIENCE, N = 29, 10, 60  # the dying symbol's last bar, bars until it counts as delisted, bars of the other


@dataclass(frozen=True)
class Asked:
    """As much of an experiment as labels need."""

    labels: Any
    features: Any = field(default_factory=lambda: SimpleNamespace(side=lambda _: None))
    costs: Any = field(default_factory=lambda: SimpleNamespace(borrow_per_year=0.0))


def walk(symbol: str, n: int) -> pl.DataFrame:
    close = np.exp(np.cumsum(np.random.default_rng(ord(symbol)).normal(0, 0.01, n)))
    time = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(n)]
    prices = {name: close * factor for name, factor in (("open", 1), ("high", 1.004), ("low", 0.996), ("close", 1))}
    return pl.DataFrame({"symbol": symbol, "time": time, **prices, "volume": 1.0, "segment": ord(symbol)}).with_columns(
        pl.col("time").cast(pl.Datetime("us", "UTC"))
    )


BARS = pl.concat([walk("A", LAST + 1), walk("B", N)])
LABELS = [
    ForwardReturn(horizon_bars=5, dead_after_bars=PATIENCE, delisting_return=-0.3),
    TripleBarrier(horizon_bars=6, atr_bars=3, dead_after_bars=PATIENCE),
]


def test_a_label_that_a_delisting_ended_is_known_when_the_delisting_is():
    asked = Asked(LABELS[0])
    labels = outcomes_of(asked, BARS)
    known, clock = known_times(asked, BARS, labels), np.unique(BARS["time"].to_numpy())
    assert (known[: LAST - 4] == clock[5 : LAST + 1]).all()  # the fifth bar after it, the last one among them
    assert (labels.end[LAST - 4 : LAST] == LAST).all()
    assert (known[LAST - 4 : LAST] == clock[LAST + PATIENCE]).all()
    assert np.isnat(known[LAST])
    early, late = (known_by(asked, BARS, labels, clock[k].item().replace(tzinfo=UTC)) for k in (38, 39))
    assert not early.resolved[LAST - 4 : LAST].any()
    assert late.resolved[LAST - 4 : LAST].all()


@pytest.mark.parametrize("label", LABELS, ids=["by time", "by barriers"])
def test_no_cut_changes_what_was_known_then(label):
    """The audit's comparison: also between a symbol's last bar and the moment at which its delisting is known."""
    asked = Asked(label)
    for t in BARS["time"].unique().sort()[10:]:
        frames = [
            label_frame(asked, some, outcomes_of(asked, some)).filter(pl.col("known") <= t)
            for some in (BARS, BARS.filter(pl.col("time") <= t))
        ]
        assert frame_difference(*frames, KEYS) is None, t
