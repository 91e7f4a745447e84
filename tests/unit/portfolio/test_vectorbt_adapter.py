import subprocess
import sys

import polars as pl
import pytest
import vectorbt

from tradsys.core.errors import DataError
from tradsys.portfolio.costs import Costs
from tradsys.portfolio.simulator import TARGETS_SCHEMA
from tradsys.portfolio.vectorbt_adapter import simulate_many


def wanted(bars: pl.DataFrame, every: int) -> pl.DataFrame:
    row = {"side": 1, "size": 1.0, "take_profit": 0.5, "stop_loss": 0.5, "horizon_bars": 3}
    columns = {k: pl.lit(v, dtype=TARGETS_SCHEMA[k]) for k, v in row.items()}
    return bars.gather_every(every).select("symbol", "time", **columns)


def test_all_strategies_are_columns_of_one_call_to_the_rust_engine(make_walk_bars, monkeypatch):
    calls = []
    real = vectorbt.Portfolio.from_orders

    def spy(**kwargs):
        calls.append(kwargs)
        return real(**kwargs)

    monkeypatch.setattr(vectorbt.Portfolio, "from_orders", spy)
    bars = make_walk_bars(50, ("AAA", "BBB"))
    ledgers = simulate_many(bars, {f"s{k}": wanted(bars, k) for k in (1, 2, 3)}, Costs())
    assert len(calls) == 1
    assert calls[0]["engine"] == "rust"
    assert calls[0]["price"].shape[1] == 3 * 2
    assert len({len(ledger.trades) for ledger in ledgers.values()}) == 3


def test_a_strategy_does_not_depend_on_its_neighbours(make_walk_bars):
    bars = make_walk_bars(80, ("AAA", "BBB"))
    targets = {"idle": pl.DataFrame(schema=TARGETS_SCHEMA), "busy": wanted(bars, 1), "calm": wanted(bars, 7)}
    together = simulate_many(bars, targets, Costs())
    for name, own in targets.items():
        alone = simulate_many(bars, {name: own}, Costs())[name]
        assert alone.trades.equals(together[name].trades)
        assert alone.open_trades.equals(together[name].open_trades)
        assert alone.equity.equals(together[name].equity)


def test_no_strategies_no_ledgers(make_walk_bars):
    assert simulate_many(make_walk_bars(5), {}, Costs()) == {}


def test_the_error_names_the_strategy(make_walk_bars):
    bars = make_walk_bars(10)
    targets = {"good": wanted(bars, 2), "bad": wanted(make_walk_bars(20), 2)}
    with pytest.raises(DataError, match="bad: of 10 target rows, 5 lie at no bar"):
        simulate_many(bars, targets, Costs())


def test_import_is_silent():
    code = "import tradsys.portfolio.vectorbt_adapter"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
