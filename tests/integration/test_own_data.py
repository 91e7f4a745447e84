"""The walks of docs/data.md: own coins, parts of a month, the monthly update, a CSV of stocks."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from omegaconf import OmegaConf

from tests.integration.conftest import inside
from tests.vendor_forms.forms import HEAD, binance, csv, fmt, random_bars, texts, zipped
from tradsys.config.compose import ConfigError, build, compose
from tradsys.config.own_data import OwnFolders
from tradsys.core.errors import DataError
from tradsys.fetch import work as fetch


def source(*overrides):
    data = compose("train", ["data=stored", *overrides]).data
    return build(OmegaConf.create({"data": OmegaConf.to_container(data, resolve=True)}))["data"]["source"]


def test_my_coins_and_a_new_one_beside_the_market(tmp_path):
    (tmp_path / "coins").mkdir()
    for k in range(20):
        (tmp_path / "coins" / f"C{k:02d}USDT.csv").write_bytes(binance(random_bars(30, seed=k)))
    late = random_bars(10, seed=77, start=datetime(2024, 1, 1, 12, tzinfo=UTC))
    (tmp_path / "NEWUSDT_1h.csv").write_bytes(binance(late))
    with inside(tmp_path):
        fetch(["path=coins", "layout=binance", "name=my_coins"])
        fetch(["path=NEWUSDT_1h.csv", "layout=binance", "symbol=NEWUSDT", "name=my_coins"])
        assert source("data.source.name=my_coins").bars()["symbol"].n_unique() == 21
        bars = source("data.source.name=my_coins", "symbols=[NEWUSDT]", "market_symbol=C00USDT").bars()
    assert dict(bars.group_by("symbol").len().iter_rows()) == {"NEWUSDT": 10, "C00USDT": 10}


def test_the_monthly_update_adds_and_a_revision_stops(tmp_path, capsys):
    bars = random_bars(90)
    with inside(tmp_path):
        for k, part in enumerate((bars[:60], bars[50:])):
            (tmp_path / f"m{k}.zip").write_bytes(zipped({f"BTCUSDT-1h-2025-0{k + 1}.csv": binance(part)}))
            fetch([f"path=m{k}.zip", "layout=binance", "symbol=BTCUSDT", "name=mine"])
        assert "BTCUSDT: 30 bars added, 10 already stored" in capsys.readouterr().out
        assert source("data.source.name=mine").bars()["close"].to_list() == bars["close"].to_list()
        revised = bars.with_columns(volume=bars["volume"] + 1)
        (tmp_path / "r.csv").write_bytes(binance(revised))
        with pytest.raises(DataError, match="90 stored bars differ"):
            fetch(["path=r.csv", "layout=binance", "symbol=BTCUSDT", "name=mine"])
        fetch(["path=r.csv", "layout=binance", "symbol=BTCUSDT", "name=mine", "mode=replace"])
        fetch(["name=mine", "mode=undo"])
        assert source("data.source.name=mine").bars()["volume"].to_list() == bars["volume"].to_list()


def test_my_csv_of_stocks_in_hours_becomes_sessions(tmp_path):
    opens = [datetime(2024, 1, day, 14, 30, tzinfo=UTC) + timedelta(hours=h) for day in (16, 17, 18) for h in range(7)]
    bars = random_bars(21)
    bars = bars.with_columns(time=type(bars["time"])(opens, dtype=bars.schema["time"]))
    (tmp_path / "AAA.csv").write_bytes(csv(texts(bars, fmt("%Y-%m-%d %H:%M", "America/New_York")), HEAD))
    with inside(tmp_path):
        argv = ["path=AAA.csv", "layout=yahoo", "calendar=XNYS", "resample=1d", "name=mine"]
        with pytest.raises(DataError, match="give zone=America/New_York"):
            fetch(argv)
        fetch([*argv, "zone=America/New_York"])
        got = source("data.source.name=mine").bars()
    assert [t.hour for t in got["time"]] == [21, 21, 21]
    assert got["volume"][0] == pytest.approx(bars["volume"][:7].sum())


def test_a_dataset_of_the_store_is_a_data_config_by_its_name(tmp_path, monkeypatch):
    hours, days = random_bars(40), random_bars(40, seed=3)
    days = days.with_columns(time=pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 2, 9), "1d", eager=True))
    with inside(tmp_path):
        (tmp_path / "h.csv").write_bytes(csv(texts(hours, fmt("%Y-%m-%d %H:%M")), HEAD))
        (tmp_path / "d.csv").write_bytes(csv(texts(days, fmt("%Y-%m-%d")), HEAD))
        fetch(["path=h.csv", "symbol=AAA", "name=mine"])
        fetch(["path=d.csv", "symbol=AAA", "name=daily_mine", "calendar=24/7"])
        for command in ("train", "tune", "audit", "daily"):
            assert compose(command, ["data=mine"]).data.source.name == "mine"
        assert compose("train", ["data=mine"]).data.max_gap_minutes == 360
        assert compose("train", ["data=daily_mine"]).data.max_gap_minutes == 10080
        assert compose("train", ["data=daily_mine"]).data.calendar == "24/7"
        assert compose("train", ["data=mine", "data.max_gap_minutes=90"]).data.max_gap_minutes == 90
        days = days.filter(pl.col("time").dt.date().is_in([date(2024, 1, d) for d in range(2, 6)]))
        (tmp_path / "s.csv").write_bytes(csv(texts(days, fmt("%Y-%m-%d")), HEAD))
        fetch(["path=s.csv", "symbol=AAA", "name=stocks_mine", "calendar=XNYS"])
        for words in (["data=stocks_mine"], ["data=stored", "data.source.name=stocks_mine"]):
            config = compose("train", words)
            assert (config.data.calendar, config.data.max_gap_minutes) == ("XNYS", 10080)
            assert config.costs.borrow_bps_per_year == 60
        (tmp_path / "conf" / "data").mkdir(parents=True)
        own = tmp_path / "conf" / "data" / "own.yaml"
        own.write_text("defaults: [stored]\nsource: {name: stocks_mine}\n")
        config = compose("train", ["data=own"])
        assert (config.data.source.name, config.data.calendar) == ("stocks_mine", "XNYS")
        assert (config.data.max_gap_minutes, config.costs.borrow_bps_per_year) == (10080, 60)
        assert compose("train", ["data=own", "data.max_gap_minutes=90"]).data.max_gap_minutes == 90
        named = tmp_path / "other" / "data" / "stocks_mine.yaml"  # a file wins over a dataset of its name
        named.parent.mkdir(parents=True)
        named.write_text("defaults: [stored]\nsource: {name: stocks_mine, symbols: [AAA]}\n")
        monkeypatch.setattr(OwnFolders, "given", ())
        config = compose("train", ["--config-dir", "other", "data=stocks_mine"])
        assert (config.data.source.symbols, config.data.max_gap_minutes) == (["AAA"], 10080)
        own.write_text("defaults: [stored]\nmax_gap_minutes: 77\nsource: {name: stocks_mine}\n")
        assert compose("train", ["data=own"]).data.max_gap_minutes == 77
        assert compose("train", [*words, "costs=default"]).costs.borrow_bps_per_year == 0
        with pytest.raises(ConfigError, match="data=theirs does not exist"):
            compose("train", ["data=theirs"])
