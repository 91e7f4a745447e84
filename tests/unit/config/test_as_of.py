"""`data.as_of` reaches every stored source of a data choice, however deep."""

import pytest
from omegaconf import OmegaConf

from tradsys.config.as_of import KNOWN, STORED, spread_as_of, with_as_of
from tradsys.config.compose import ConfigError, build, compose


def stored(node):
    """Every stored source below a plain config."""
    if isinstance(node, list):
        return [one for part in node for one in stored(part)]
    if not isinstance(node, dict):
        return []
    own = [node] if node.get("_target_") == STORED else []
    return own + [one for part in node.values() for one in stored(part)]


@pytest.mark.parametrize(("choice", "n"), [("btc_hourly", 1), ("us_panel", 1), ("crypto_breadth", 5)])
def test_one_key_sets_every_stored_source(choice, n):
    config = compose("train", [f"data={choice}", "data.as_of=2026-03-01T12:00"])
    found = stored(OmegaConf.to_container(config.data))
    assert [one["as_of"] for one in found] == ["2026-03-01T12:00"] * n
    assert build(config.data)["as_of"] == "2026-03-01T12:00"
    plain = compose("train", [f"data={choice}"])
    assert [one.get("as_of") for one in stored(OmegaConf.to_container(plain.data))] == [None] * n
    again = with_as_of(plain, "2026-03-01")
    assert [one["as_of"] for one in stored(OmegaConf.to_container(again.data))] == ["2026-03-01"] * n


def test_it_reaches_the_files_of_values_that_a_download_keeps_a_ledger_of():
    config = compose("train", ["data=crypto_information", "data.as_of=2026-03-01"])
    known = config.data.source.known
    assert [known[name].funding["_target_"] for name in ("btc", "eth")] == [KNOWN, KNOWN]
    assert [known[name].funding["as_of"] for name in ("btc", "eth")] == ["2026-03-01", "2026-03-01"]


def test_a_moment_that_no_source_reads_is_refused():
    with pytest.raises(ConfigError, match=r"data\.as_of=2026-03-01, and no source of these data keeps"):
        compose("train", ["data=synthetic", "+data.as_of=2026-03-01"])
    read = OmegaConf.create(
        {"data": {"as_of": "2026-03-01", "source": {"_target_": "own.Bars", "at": "${data.as_of}"}}}
    )
    assert spread_as_of(read) is read
