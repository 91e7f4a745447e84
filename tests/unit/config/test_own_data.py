"""A user's own data and configurations at the commands."""

import json

import pytest

from tests.integration.conftest import inside
from tradsys.config.compose import build, compose
from tradsys.config.explain import ConfigError
from tradsys.config.named_data import with_costs_of
from tradsys.config.own_data import OwnFolders

OWN = "bar_minutes: 15\nmax_gap_minutes: 60\nmarket_symbol: null\nsource: {symbols: null}\n"


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    monkeypatch.setattr(OwnFolders, "given", ())
    monkeypatch.setattr(OwnFolders, "folders", ())


def test_symbols_that_yaml_takes_for_something_else_stay_texts():
    data = compose(
        "train", ["data=stored", "data.source.name=mine", "symbols=[NAN,TRUE,1E5]", "market_symbol=1E5"]
    ).data
    assert (list(data.source.symbols), data.market_symbol, data.source.reference) == (
        ["NAN", "TRUE", "1E5"],
        "1E5",
        "1E5",
    )
    assert compose("fetch", ["symbol=NAN", "name=1E5"]).symbol == "NAN"
    assert compose("fetch", ["symbol=null", "name=x"]).symbol is None


def test_symbols_reach_the_stored_source_below_joined_series():
    assert list(compose("train", ["data=us_panel", "symbols=[AAPL]"]).data.source.source.symbols) == ["AAPL"]


def test_a_project_s_conf_is_searched_first(tmp_path):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    for name in ("mine", "synthetic"):
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(OWN)
    with inside(tmp_path):
        assert compose("train", ["data=mine", "symbols=[A]"]).data.source.symbols == ["A"]
        assert compose("train", []).data.bar_minutes == 15, "the project's own file goes before the package's"
    assert compose("train", []).data.bar_minutes == 60


def test_own_data_begin_with_those_of_the_store_or_say_what_is_missing(tmp_path):
    folder = tmp_path / "conf" / "data"
    folder.mkdir(parents=True)
    (folder / "bare.yaml").write_text("max_gap_minutes: 360\nmarket_symbol: null\nsource: {symbols: [A]}\n")
    (folder / "mine.yaml").write_text("defaults: [stored]\nmarket_symbol: B\nsource: {name: coins, symbols: [A]}\n")
    with inside(tmp_path):
        config = compose("train", ["data=mine"])
        source = build(config)["data"]["source"]
        assert (source.name, list(source.symbols), source.reference, config.data.max_gap_minutes) == (
            "coins",
            ["A"],
            "B",
            360,
        )
        with pytest.raises(ConfigError, match=r"without a _target_.*defaults"):
            build(compose("train", ["data=bare"]))


def test_config_dir_is_searched_first(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(OWN)
    assert compose("train", ["--config-dir", str(tmp_path), "data=mine"]).data.bar_minutes == 15
    assert compose("train", [f"--config-dir={tmp_path}", "data=mine"]).data.bar_minutes == 15
    with pytest.raises(ConfigError, match="is no folder; give the folder"):
        compose("train", ["--config-dir=/nowhere", "data=mine"])


@pytest.mark.parametrize(
    ("overrides", "fee", "dead"),
    [
        (["data=us_daily"], 60.0, 5),
        (["+experiment=foundry"], 60.0, 5),
        (["data=us_panel_snapshot"], 60.0, 5),
        (["data=us_daily", "costs=default"], 0.0, 48),
        (["data=btc_hourly"], 0.0, 48),
        (["+experiment=explosion"], 0.0, 10),
    ],
)
def test_data_of_stocks_choose_the_costs_of_stocks(overrides, fee, dead):
    config = compose("train", overrides)
    assert (config.costs.borrow_bps_per_year, config.costs.dead_after_bars) == (fee, dead)
    assert config.labels.get("dead_after_bars", dead) == dead


@pytest.mark.parametrize("later", [{"source": "actions.csv", "events": 5}, {"source": "more.csv", "calendar": None}])
def test_what_comes_in_later_does_not_hide_the_calendar_of_the_bars(tmp_path, later):
    """After a file of dividends the dataset was no exchange's any more: no borrow fee, no loss at a death."""
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    imports = [{"source": "bars.csv", "calendar": "XNYS"}, later]
    (folder / "manifest.json").write_text(json.dumps({"bar_minutes": 1440.0, "imports": imports}))
    with inside(tmp_path):
        config = compose("train", ["data=mine"])
    assert config.data.calendar == "XNYS"
    assert (config.costs.borrow_bps_per_year, config.costs.dead_after_bars) == (60.0, 5)


def test_a_bundle_on_an_exchanges_data_is_backtested_at_the_costs_of_stocks():
    assert with_costs_of({"calendar": "XNYS"}, ["span=later"]) == ["span=later", "costs=stocks"]
    for calendar, given in (("XNYS", ["costs=default"]), ("24/7", []), (None, [])):
        assert with_costs_of({"calendar": calendar}, given) == given
