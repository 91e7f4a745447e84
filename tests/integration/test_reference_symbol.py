"""A new coin under an old bundle: the market is read beside it, and is neither judged, traded nor held."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import tradsys.backtest
import tradsys.trade
from tests.integration.conftest import SHRUNK, inside
from tradsys.config.compose import build, compose
from tradsys.core.errors import DataError
from tradsys.market.store import BarStore
from tradsys.market.synthetic import SyntheticMarket
from tradsys.research.pipeline.dataset import load_bars, prepare
from tradsys.research.pipeline.settings import Experiment
from tradsys.serving.bundle import Bundle

OWN = ["data=stored", "data.source.name=coins", "symbols=[NEWUSDT]", "market_symbol=SYN0"]
LEVELS = ["levels=quantile", "strategy.reckless.rule.value=0.3", "strategy.reckless.rule.kind=quantile"]


@pytest.fixture(scope="module")
def lab(run_folder):
    """The folder of the shared run, with a store that holds its market and a coin that its bundle never saw."""
    folder = run_folder.parents[2]
    market = SyntheticMarket(n_bars=1600).bars().filter(symbol="SYN0")
    coin = SyntheticMarket(n_bars=1600, seed=99).bars().filter(symbol="SYN1").with_columns(symbol=pl.lit("NEWUSDT"))
    with inside(folder):
        BarStore(folder / "data").write("coins", pl.concat([coin, market]), {"source": "test"})
    return folder


def test_a_backtest_trades_and_holds_the_new_coin_alone(lab):
    with inside(lab):
        tradsys.backtest.work([*OWN, "span=test", "strategy=[reckless]", *LEVELS, "evaluation.n_draws=50"])
        folder = lab / "runs/backtest/latest"
    trades = pl.read_parquet(folder / "trades.parquet")
    assert trades["symbol"].unique().to_list() == ["NEWUSDT"]
    report = json.loads((folder / "report.json").read_text())
    assert report["provenance"]["data"]["reference"] == "SYN0"
    curve = report["equity"]["curves"]["buy and hold"]
    closes = SyntheticMarket(n_bars=1600, seed=99).bars().filter(symbol="SYN1")
    span = [report["provenance"]["bundle"]["test"][k][:19] for k in (0, 1)]
    held = closes.filter(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S").is_between(*map(pl.lit, span)))
    assert curve[-1] == pytest.approx(held["close"][-1] / (held["open"][1] * (1 + 5e-4) * (1 + 1e-3)))


def test_a_market_that_begins_within_the_span_cuts_strategy_and_holding_alike(lab, run_folder):
    """Nothing is decided before the market is known: what is held earns from the first decision on, too."""
    with inside(lab):
        tradsys.backtest.work([*OWN, "span=test", "strategy=[reckless]", *LEVELS, "evaluation.n_draws=50"])
        bundle = json.loads((lab / "runs/backtest/latest/report.json").read_text())["provenance"]["bundle"]
        first, last = map(datetime.fromisoformat, bundle["test"])
        readers = [f for f in Bundle.load(run_folder / "bundle").features.features if getattr(f, "reads_market", False)]
        begins = first + timedelta(hours=50 - max(feature.warmup for feature in readers))
        bars = BarStore(lab / "data").read("coins")
        bars = bars.filter((pl.col("symbol") != "SYN0") | (pl.col("time") >= begins))
        BarStore(lab / "data").write("late", bars, {"source": "test"})
        late = ["data=stored", "data.source.name=late", *OWN[2:], *LEVELS, "evaluation.n_draws=50"]
        tradsys.backtest.work([*late, "span=test", "strategy=[reckless]"])
        report = json.loads((lab / "runs/backtest/latest/report.json").read_text())
    coin = bars.filter(pl.col("symbol") == "NEWUSDT", pl.col("time").is_between(first, last))
    (said,) = (line for line in report["verdict"]["reasons"] if line.startswith("decisions run from"))
    decided = datetime.fromisoformat(said[len("decisions run from ") :][:16]).replace(tzinfo=UTC)
    held = coin.filter(pl.col("time") >= decided)
    assert 0 < coin.height - held.height < coin.height
    assert f"{coin.height - held.height} closes are cut" in said
    bought = held["close"][-1] / (held["open"][1] * (1 + 5e-4) * (1 + 1e-3))
    assert report["equity"]["curves"]["buy and hold"][-1] == pytest.approx(bought)
    if begins > first:  # else it is there throughout, and its warm-up alone cuts
        assert f"market symbol SYN0 has bars from {begins:%Y-%m-%d}" in " ".join(report["verdict"]["reasons"])


def test_a_replay_trades_what_the_backtest_trades(lab):
    with inside(lab):
        tradsys.trade.work(["replay", *OWN[:2], "market_symbol=SYN0", "data.source.trade_reference=false", *LEVELS,
                            "strategy=reckless", "name=new_coin", "until=2023-02-24T03:00"])  # fmt: skip
        page = (lab / "runs/trade/new_coin/report.html").read_text()
    assert "NEWUSDT" in page
    assert "SYN0" not in page


def test_no_sample_is_of_the_reference(lab):
    with inside(lab):
        parts = build(compose("train", [*SHRUNK[2:], *OWN]))
        experiment = Experiment.of(parts)
        prepared = prepare(experiment, load_bars(experiment))
    table = prepared.table
    assert "SYN0" in table.symbols
    assert {table.symbols[k] for k in set(table.symbol[prepared.samples.rows].tolist())} == {"NEWUSDT"}


def test_keys_of_the_data_need_a_data_config_to_change(lab):
    with inside(lab), pytest.raises(DataError, match="needs a data config to change; give data= too"):
        tradsys.backtest.work(["market_symbol=SYN0"])
    with inside(lab), pytest.raises(DataError, match="trade: market_symbol=SYN0 needs a data config"):
        tradsys.trade.work(["replay", "market_symbol=SYN0", "strategy=reckless", "levels=score"])
