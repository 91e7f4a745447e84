"""One line for each way to get an override wrong, and it blames the right one."""

import re

import pytest
from omegaconf import OmegaConf

from tradsys.config.compose import ConfigError, as_dict, build, compose

WRONG = {
    "a group inside a model that is not chosen": (
        ["train", "events=clock", "events.every_hours=8", "augmentation=none"],
        ["model=transformer has no augmentation", "model=supcon", "augmentation@model.module.views=none"],
    ),
    "a group inside the chosen model": (["train", "probe=linear", "model=supcon"], ["write probe@model.probe=linear"]),
    "a key of a choice that is there": (["train", "events=clock", "events.every_hour=8"], ["'events.every_hours'?"]),
    "a key of another choice": (["train", "model=lightgbm", "model.lookback=8"], ["model=lightgbm has n_estimators"]),
    "a key below an interpolation": (["train", "model.trainer.max_epochs=3"], ["write trainer.max_epochs="]),
    "a key of another command": (["train", "n_trials=3"], ["it is a key of tune"]),
    "a key of a group": (["fetch", "data.n_bars=3"], ["unknown key 'data.n_bars'", "did you mean"]),
    "a group of another command": (["train", "sweep=logistic"], ["it is chosen with tune"]),
    "a study of another command": (["train", "+study=losses"], ["it is chosen with audit, compare"]),
    "a profile that is not chosen": (
        ["train", "strategy=[cost_aware]", "strategy.sniper.rule.value=0.6"],
        ["unknown key 'strategy.sniper.rule.value'", "strategy has cost_aware"],
    ),
    "an unknown profile": (["train", "strategy=[sniper,nope]"], ["strategy=nope does not exist"]),
    "a new key nothing reads": (["train", "+foo=3"], ["unknown key 'foo'"]),
    "a new key that is there": (["train", "+model.lookback=9"], ["write model.lookback=9, without +"]),
    "a choice twice": (["train", "+experiment=demo", "+experiment=supcon"], ["given twice, demo and supcon"]),
    "a key that lies deeper": (["train", "agent=trend", "model.lookback=9"], ["did you mean 'model.model.lookback'"]),
    "a key of the net": (["train", "agent=trend", "model.net.d_model=8"], ["did you mean 'model.model.net.d_model'"]),
    "an added choice": (["train", "+model=lightgbm"], ["write model=lightgbm, without +"]),
    "a choice that is no name": (["train", "events=[1]"], ["events=1 does not exist"]),
    "no choice": (["train", "model=null"], ["model is one of"]),
    "several values": (["train", "model=a,b"], ["gives several values"]),
    "no value": (["train", "model"], ["gives no value"]),
    "no key": (["train", "=3"], ["names no key"]),
    "a switch": (["train", "--multirun"], ["the only switch is --help"]),
    "unreadable": (["train", "model.lookback=[1"], ["cannot be read"]),
    "a group taken away": (["train", "~data"], ["removes a config group"]),
    "Hydra's own": (["train", "hydra.run.dir=/tmp"], ["which no command has"]),
    "an element of a list": (["train", "data.source.symbols.7=A"], ["is a list of 3"]),
    "a mapping": (["compare", "study=seeds", "study.variants={a:1}"], ["+study.variants.KEY=... adds one"]),
}


@pytest.mark.parametrize(("asked", "words"), WRONG.values(), ids=WRONG.keys())
def test_the_wrong_override_is_blamed_in_one_line(asked, words):
    with pytest.raises(ConfigError) as refused:
        compose(asked[0], asked[1:])
    line = str(refused.value)
    assert "\n" not in line
    assert line.startswith("config: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("value", ["abc", "-1", "null", "1.5", "4294967296"])
def test_a_seed_is_a_whole_number(value):
    with pytest.raises(ConfigError, match="a seed is a whole number"):
        as_dict(compose("train", [f"seed={value}"]))


def built(override):
    config = compose("train", [override])
    return as_dict(config), build(config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("costs.fee_bps=abc", "config: costs.fee_bps='abc': Costs cannot be built from it"),
        ("+model.foo=3", "takes no 'foo'"),
        ("~model.batch_size", "lacks batch_size"),
        ("model.lookback=${data.nope}", "model.lookback: "),
        ("seed=${oc.env:NOT_SET_HERE}", "NOT_SET_HERE"),
    ],
)
def test_what_composes_but_cannot_be_built_is_reported_with_its_place(override, words):
    with pytest.raises(ConfigError) as refused:
        built(override)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def int_of_a_word(n_bars):
    return int(n_bars)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["auditor.subsample=2"], "auditor.subsample"),
        (["baselines.lightgbm.n_estimators=0"], "baselines.lightgbm.n_estimators"),
        (["model=stacked", "model.members.lightgbm.n_estimators=0"], "model.members.lightgbm.n_estimators"),
        (["model=seed_average", "model.model.batch_size=0"], "model.model.batch_size"),
        (["strategy.sniper.rule.value=2"], "strategy.sniper.rule.value"),
        (["data.n_bars=-5"], "data.n_bars"),
    ],
)
def test_a_refused_value_names_the_key_where_it_stands(overrides, key):
    with pytest.raises(ValueError, match=rf"; set {re.escape(key)}$"):
        build(compose("train", overrides))


def test_a_foreign_error_of_a_constructor_names_the_key_that_was_set_and_its_value():
    part = {"_target_": f"{__name__}.int_of_a_word", "n_bars": "${data.n_bars}"}
    config = OmegaConf.create({"data": {"n_bars": "abc", "source": part}})
    with pytest.raises(ConfigError, match=r"^config: data\.n_bars='abc': .*int_of_a_word cannot be built from it"):
        build(config)


@pytest.mark.parametrize("value", ["abc", "1.5", "null"])
def test_a_count_of_bars_is_refused_with_its_key_and_value(value):
    with pytest.raises(ValueError, match=r"n_bars=('abc'|1\.5|None); a whole number >= 1; set data\.n_bars"):
        built(f"data.n_bars={value}")


def test_a_bar_length_of_the_last_version_s_command_lines_still_composes():
    assert compose("train", ["data=btc_hourly", "data.bar_minutes=60"]).data.bar_minutes == 60
    assert compose("train", ["data.bar_minutes=30"]).data.bar_minutes == 30


@pytest.mark.parametrize("command", ["train", "tune", "audit", "doctor"])
def test_an_experiment_is_understood_without_its_plus(command):
    assert compose(command, ["experiment=demo"]) == compose(command, ["+experiment=demo"])


@pytest.mark.parametrize("agent", ["trend", "reversion", "volatility"])
@pytest.mark.parametrize("experiment", ["demo", "ensemble"])
def test_every_agent_builds_beside_an_experiment(agent, experiment):
    plain = compose("train", [f"agent={agent}", f"+experiment={experiment}"])
    parts = build(plain)
    assert parts["agent"] == agent
    assert all(type(profile).__name__ == "Profile" for profile in parts["strategy"].values())
    kept = {"trend": "top_decile", "reversion": "top_decile", "volatility": "breakout"}[agent]
    assert kept in parts["strategy"]


def test_an_experiment_sizes_whatever_net_is_chosen():
    for model in ("transformer", "supcon", "resnet", "tcn"):
        assert build(compose("train", [f"model={model}", "+experiment=demo"]))["model"].lookback == 32
    assert build(compose("train", ["+experiment=demo", "model.lookback=16"]))["model"].lookback == 16


def test_a_backtest_names_other_data_as_train_does():
    assert compose("backtest", ["data_choice=eth_hourly"]).data_choice == "eth_hourly"
