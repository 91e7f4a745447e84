"""A value of the wrong kind is refused with its key before anything is built, whatever key it is."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tradsys.config.compose import ConfigError, build, compose, conf_folder
from tradsys.config.explain import leaves, value_at
from tradsys.config.kinds import _fits, beyond_sense, wrong_key, wrong_value
from tradsys.config.meanings import read_meanings
from tradsys.core.bounds import MOST_WHOLE, too_large
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


# floats that may be 1e10: such a value does what it says, and the result shows it
FOOLISH = {
    "C": "no penalty", "wide_C": "no penalty", "alpha": "nothing but penalty", "l2": "no leaf says anything",
    "gamma": "trees without a split", "min_child_weight": "trees without a split", "clip": "nothing is cut",
    "gradient_clip": "nothing is cut", "upper": "a barrier that nothing reaches", "lower": "as upper",
    "margin": "no trade", "capital": "rich", "failed_skill": "of a failed trial", "cpu": "any number is the same",
    "gpu": "as cpu", "bf16_gain": "never bf16", "headroom": "no room at all", "cache_gb": "a large disk",
    "fall": "every date is a drop", "late_stop": "no feature fails", "late_warn": "none is warned of",
    "least": "no date is covered", "least_scale": "nothing explodes", "stop_above": "never", "stop_below": "always",
    "warn_above": "never", "warn_below": "always", "time_decay": "refused where it meets the samples",
    "min_market_cap": "no name is so large",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [["train", "+experiment=demo"], ["train", "model=supcon"], ["train", "model=xgboost"], ["daily"],
     ["trade", "levels=score"], ["diagnose"], ["audit"], ["doctor"], ["runs"], ["reproduce"]],
    ids=" ".join,
)  # fmt: skip
def test_a_number_beyond_all_sense_is_refused_unless_it_is_merely_foolish(command):
    base = compose(command[0], command[1:])
    plain, raw = OmegaConf.to_container(base, resolve=True), OmegaConf.to_container(base, resolve=False)
    assert beyond_sense(plain, raw) is None
    taken = []
    for path, value in leaves(raw):
        parent, _, last = path.rpartition(".")
        if isinstance(value, bool) or not isinstance(value, int | float) or last in FOOLISH:
            continue
        huge = 10**10 if isinstance(value, int) else 1e10
        if too_large(last, huge):
            continue
        holder, top = value_at(plain, parent) if parent else plain, path.partition(".")[0]
        key = int(last) if isinstance(holder, list) else last
        before, holder[key] = holder[key], huge
        if not _is_refused(command[0], base, path, {top: plain[top]}, {top: raw[top]}):
            taken.append(path)
        holder[key] = before
    assert taken == []


def _is_refused(command, base, path, plain, raw):
    changed = base.copy()
    OmegaConf.update(changed, path, value_at(plain, path))
    if wrong_value(plain, raw) or wrong_key(changed, base, [path], command, lambda: read_meanings(conf_folder())):
        return True
    try:
        instantiate(OmegaConf.create(plain), _convert_="all")
    except (ValueError, InstantiationException):
        return True
    return False


@pytest.mark.parametrize(
    ("override", "key"),
    [("size.n_layers=10000000000", "size.n_layers"), ("model.module.lr=1e10", "model.module.lr"),
     ("baselines.lightgbm.learning_rate=1e10", "baselines.lightgbm.learning_rate"),
     ("data.seed=10000000000", "data.seed"),
     ("model.module.gamma=1e10", "gamma"), ("auditor.max_depth=1000", "auditor.max_depth"),
     ("trainer.devices=100000", "trainer.devices")],
)  # fmt: skip
def test_it_is_refused_with_its_key_before_a_net_of_that_size_is_built(override, key):
    with pytest.raises(TradsysError) as refused:
        build(compose("train", ["+experiment=demo", override]))
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_parts_from_outside_limit_their_own_settings_and_bytes_have_no_limit():
    settings = {"lr": 50.0, "max_bytes": MOST_WHOLE + 1}
    theirs = {"model": {"_target_": "mine.Model", **settings}}
    assert beyond_sense(theirs, theirs) is None
    ours = {"model": {"_target_": "tradsys.models.x.Model", "members": [{"lr": 50.0}]}}
    assert beyond_sense(ours, ours) == "config: model.members.0.lr=50.0; lr is at most 1; give model.members.0.lr=..."
    assert too_large("max_bytes", settings["max_bytes"]) is None


def test_a_gate_that_could_never_stop_is_refused():
    with pytest.raises(ConfigError, match=r"gates.rules.coverage.stop_below=nan; stop_below is a number"):
        build(compose("daily", ["gates.rules.coverage.stop_below=nan"]))
