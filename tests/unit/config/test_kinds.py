"""A value of the wrong kind is refused with its key before anything is built, whatever key it is."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from tradsys.config.compose import ConfigError, build, compose
from tradsys.config.explain import leaves, value_at
from tradsys.config.kinds import _fits, wrong_value
from tradsys.core.errors import TradsysError
from tradsys.models.training.trainer import TrainerSettings

STRANGE = {"a_key_of_nobody": 1}  # no argument but a part takes such a mapping
PARTS = ("model.pretrain",)


def arguments(plain):
    """Dotted path and value of every argument of a constructor that is no mapping itself and follows no other key."""
    for path, value in leaves(plain):
        parent = value_at(plain, path.rpartition(".")[0]) if "." in path else plain
        if "_target_" in parent and not (isinstance(value, str) and "${" in value) and not isinstance(value, dict):
            yield path, value


@pytest.mark.parametrize("command", [["train", "+experiment=demo"], ["daily"], ["trade", "levels=score"]])
def test_every_argument_refuses_another_kind_with_its_key_and_value(command):
    config = compose(command[0], command[1:])
    plain, raw = OmegaConf.to_container(config, resolve=True), OmegaConf.to_container(config, resolve=False)
    assert wrong_value(plain, raw) is None
    taken = []
    for path, value in arguments(raw):
        parent, _, last = path.rpartition(".")
        for wrong in (STRANGE, "abc", float("nan"), 1e30)[: 1 if isinstance(value, str | None) else 4]:
            value_at(plain, parent)[last] = wrong
            line = wrong_value(plain, raw)
            if line is None or not line.startswith(f"config: {path}={wrong!r}"[:60]) or "\n" in line:
                taken.append((path, wrong, line))
        value_at(plain, parent)[last] = value
    assert [one for one in taken if one[0] not in PARTS] == []


WRONG_KEYS = [
    "paths.runs=[1]", "paths.data=null", "paths.cache_gb=abc", "paths.cache=-1", "horizons=-1", "horizons=nan",
    "logger.kind=[1]", "time_decay=abc", "paths.cache_gb=1e30", "paths.runs=''", "paths.data=''",
    "question=[1]", "resume=[1]", "paths.cache_gb=-1",
]  # fmt: skip


@pytest.mark.parametrize("override", WRONG_KEYS)
def test_a_key_that_no_constructor_takes_has_the_kind_of_its_default(override):
    with pytest.raises(ConfigError) as refused:
        compose("train", [override])
    assert str(refused.value).startswith(f"config: {override.partition('=')[0]}=")


@pytest.mark.parametrize(
    ("command", "override"),
    [("tune", "n_trials=abc"), ("tune", "hours=abc"), ("tune", "n_workers=1.5"), ("trade", "capital=abc"),
     ("trade", "max_age_hours=[1]"), ("trade", "name=[1]"),
     ("tune", "n_trials=99999999999999999999"), ("fetch", "reread_bars=1.5"), ("train", "levels=1.5"),
     ("runs", "days=abc"), ("daily", "retrain_every=abc"), ("export", "force=1"), ("doctor", "doctor.processes=abc"),
     ("backtest", "data_choice=[1]"), ("reproduce", "tolerance.cpu=abc"), ("audit", "revisions=abc"),
     ("runs", "days=-1"), ("runs", "days=1e10"), ("train", "data.max_gap_minutes=1e10"),
     ("train", "features.max_gap_minutes=-1"), ("train", "model.trainer=[]"), ("train", "model.trainer={}"),
     ("train", "model.pretrain={}"), ("train", "events=[]"), ("daily", "costs=[]"), ("backtest", "costs=[]")],
)  # fmt: skip
def test_keys_of_every_command_have_a_kind(command, override):
    with pytest.raises(TradsysError, match=re.escape(override.partition("=")[0].rpartition(".")[2])):
        build(compose(command, [override]))


@pytest.mark.parametrize(
    "override", ["levels=quantile", "paths.cache_gb=0.5", "retrain_every=null", "gates.rules.disk_gb.stop_below=1e9"]
)
def test_what_a_key_says_it_takes_is_taken(override):
    key, _, value = override.partition("=")
    wanted = {"null": None, "quantile": "quantile"}.get(value, value)
    assert OmegaConf.select(compose("daily", [override]), key) == (wanted if value.isalpha() else float(value))


FITS = [
    (int, 3), (float, 3), (float, 0.5), (bool, False), (str, "x"), (int | None, None), (Literal["a", 2], 2),
    (Sequence[str], ["a"]), (tuple[float, ...], [1, 2.5]), (Mapping[str, float], {"a": 1}), (Path, "x"),
    (TrainerSettings, {"_target_": "x"}),
    (datetime | str, "2020-01-01"), (Any, object), (Sequence[Any], [{}]), (Mapping[str, Any], {"a": None}),
]  # fmt: skip
MISFITS = [
    (int, True), (int, 1.0), (int, "3"), (float, "x"), (float, float("inf")), (float, float("nan")), (float, None),
    (bool, 1), (str, 3), (Literal["a", 2], "b"), (Literal[1], True), (Sequence[str], "abc"), (Sequence[str], [1]),
    (tuple[float, ...], [1, "x"]), (Mapping[str, float], {"a": "x"}), (Path, 1), (int | None, "x"), (ConfigError, 3),
    (Path, ""), (int, 10**16), (int | None, -(10**22)), (float, 1e30), (tuple[float, ...], [1, -1e30]),
    (TrainerSettings, []), (TrainerSettings, {}), (TrainerSettings, {"epochs": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "value"), FITS)
def test_fits(hint, value):
    assert _fits(hint, value)


@pytest.mark.parametrize(("hint", "value"), MISFITS)
def test_does_not_fit(hint, value):
    assert not _fits(hint, value)


@pytest.mark.parametrize("key", ["limit_bps", "attempts", "wait_seconds", "patience_seconds", "start_seconds"])
def test_an_exchange_waits_and_tries_no_less_than_nothing(key):
    with pytest.raises(ValueError, match=rf"exchange: {key}=-1; it must be .*set exchange\.{key}"):
        build(compose("trade", ["levels=score", f"exchange.{key}=-1"]))
