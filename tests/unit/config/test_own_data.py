"""A user's own data and configurations at the commands."""

import pytest

from tests.integration.conftest import inside
from tradsys.config.compose import compose
from tradsys.config.explain import ConfigError
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


def test_config_dir_is_searched_first(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(OWN)
    assert compose("train", ["--config-dir", str(tmp_path), "data=mine"]).data.bar_minutes == 15
    assert compose("train", [f"--config-dir={tmp_path}", "data=mine"]).data.bar_minutes == 15
    with pytest.raises(ConfigError, match="is no folder; give the folder"):
        compose("train", ["--config-dir=/nowhere", "data=mine"])
