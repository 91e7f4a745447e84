from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from tradsys.portfolio.ledger import EQUITY_SCHEMA, OPEN_SCHEMA, TRADES_SCHEMA, Ledger


def make_ledger(rows: list[tuple[datetime, float]]) -> Ledger:
    return Ledger(
        trades=pl.DataFrame(schema=TRADES_SCHEMA),
        equity=pl.DataFrame([(t, e, 0.0) for t, e in rows], schema=EQUITY_SCHEMA, orient="row"),
        open_trades=pl.DataFrame(schema=OPEN_SCHEMA),
        n_cancelled=0,
    )


def at(day: int, hour: int) -> datetime:
    return datetime(2024, 3, day, hour, tzinfo=UTC)


def test_a_loss_in_the_first_bar_counts():
    ledger = make_ledger([(at(1, 1), 0.9), (at(1, 2), 0.99)])
    assert ledger.returns() == pytest.approx([-0.1, 0.1])
    assert ledger.final_equity == 0.99


def test_days_end_with_the_bar_that_closes_at_midnight_and_may_be_missing():
    ledger = make_ledger([(at(1, 1), 0.8), (at(2, 0), 1.1), (at(2, 1), 5.0), (at(2, 23), 2.2), (at(5, 0), 1.1)])
    dates, returns = ledger.daily_returns()
    assert dates.dtype == np.dtype("datetime64[D]")
    assert dates.tolist() == [at(1, 0).date(), at(2, 0).date(), at(4, 0).date()]
    assert returns == pytest.approx([0.1, 1.0, -0.5])


def test_returns_are_zero_once_all_is_lost():
    ledger = make_ledger([(at(1, 1), 0.5), (at(1, 2), 0.0), (at(1, 3), 0.0)])
    assert ledger.returns() == pytest.approx([-0.5, -1.0, 0.0])


def test_no_bar_spans_a_gap_where_nothing_was_traded():
    assert make_ledger([(at(1, 1), 1.0)]).n_spanning_gap == 0
