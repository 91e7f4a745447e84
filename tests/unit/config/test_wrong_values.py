"""A seeded draw of wrong values over the keys of every command: one line refuses each that the key cannot mean."""

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from tradsys.config import kinds
from tradsys.config.compose import ConfigError, _is_users, as_dict, build, compose
from tradsys.config.explain import leaves
from tradsys.core.errors import TradsysError

VALUES = (
    "abc", "-1", "-0.5", "0", "1.5", "1e10", "nan", "inf", "-inf", "true", "null", "''", "[]", "[1,x]", "[[1]]",
    "[null]", "[{a:1}]", "{a:1}", "{}", "../x", "/proc/x", "2020-01-01", "a" * 5000, "'a\x00b'", "'\x1b[31mred'",
    "'a\nb'", "'\u202eabc'", "'${oc.env:HOME}'", "'${oc.env:NOT_SET_ANYWHERE}'", "'${paths}'", "'${no.such.key}'",
    "'${KEY}'",
)  # fmt: skip
NO_SCALARS = ("[[1]]", "[{a:1}]", "{a:1}", "'${paths}'")
NO_NUMBERS = (*NO_SCALARS, "abc", "nan", "-inf", "../x", "/proc/x", "'${oc.env:HOME}'", "[1,x]")
COMMANDS: dict[str, list[str]] = {
    "train": ["+experiment=demo"], "tune": ["+experiment=demo", "sweep=logistic"], "compare": ["+study=seeds"],
    "fetch": ["path=nowhere.csv", "name=x"], "backtest": ["bundle=nowhere", "levels=score"], "export": ["name=x"],
    "audit": [], "doctor": [], "journal": [], "report": ["run=x"], "runs": [], "reproduce": ["run=x"],
    "daily": ["+experiment=foundry"], "trade": ["levels=score"], "diagnose": [], "new": ["name=x"],
}  # fmt: skip


@lru_cache
def defaults_of(command: str) -> dict[str, Any]:
    """Every key of a command with its resolved default, and every group or mapping at its top."""
    plain = OmegaConf.to_container(compose(command, COMMANDS[command]), resolve=True)
    found = dict(leaves(plain))
    return found | {key: plain[key] for key in sorted({key.partition(".")[0] for key in found if "." in key})}


def is_of_another_kind(default: Any, value: str) -> bool:
    """Whether no key with such a default can mean anything by this value."""
    if isinstance(default, bool) or not isinstance(default, int | float | str):
        return isinstance(default, bool) and value in NO_NUMBERS
    return value in (NO_SCALARS if isinstance(default, str) else NO_NUMBERS)


def checked(command: str, key: str, value: str) -> DictConfig:
    """The config with one wrong value, after all that a command checks before its work."""
    others = [one for one in COMMANDS[command] if one.lstrip("+").partition("=")[0] != key]
    config = compose(command, [*others, f"{key}={value.replace('KEY', key)}"])
    as_dict(config)
    build(config)
    return config


def ending(command: str, key: str, value: str) -> str:
    """taken, refused, or what is wrong with either."""
    try:
        checked(command, key, value)
    except OSError as error:
        return "refused" if error.errno else f"{type(error).__name__}: {error}"  # the disk's: one line, code 2
    except Exception as error:
        line = str(error)
        if not (isinstance(error, TradsysError | ConfigError) or (isinstance(error, ValueError) and _is_users(error))):
            return f"{type(error).__name__}: {line}"[:300]
        return "refused" if line.strip() else f"{type(error).__name__} without a word"
    wrong = is_of_another_kind(defaults_of(command)[key], value)
    return "taken, though of another kind" if wrong else "taken"


def walk(n_values: int, seed: int, commands: Sequence[str] = tuple(COMMANDS)) -> tuple[Counter, list[tuple[str, ...]]]:
    """Counts by command and ending, and every value that broke; commands take turns."""
    draw, counts, broken = random.Random(seed), Counter(), []
    for k in range(n_values):
        command = commands[k % len(commands)]
        key, value = draw.choice(list(defaults_of(command))), draw.choice(VALUES)
        found = ending(command, key, value)
        counts[command, found if found in ("taken", "refused") else "broken"] += 1
        if found not in ("taken", "refused"):
            broken.append((command, key, value[:40], found))
    return counts, broken


def test_a_drawn_wrong_value_of_any_command_is_taken_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts, broken = walk(160, seed=20)
    assert broken == []
    assert {command for command, _ in counts} == set(COMMANDS)
    assert sum(n for (_, found), n in counts.items() if found == "refused") > 80
    assert list(tmp_path.iterdir()) == []


MAPPINGS_AND_REFERENCES = [
    ("runs", "days='${oc.env:HOME}'", "days"), ("runs", "days='${paths}'", "days"), ("runs", "sort='${paths}'", "sort"),
    ("runs", "data={a:1}", "data"), ("runs", "run=[1]", "run"), ("journal", "paths={cache_gb:abc}", "paths.cache_gb"),
    ("reproduce", "paths.runs=[1]", "paths.runs"), ("reproduce", "paths.runs=null", "paths.runs"),
    ("reproduce", "tolerance={cpu:abc}", "tolerance.cpu"), ("reproduce", "tolerance.gpu='${paths}'", "tolerance.gpu"),
    ("journal", "paths.cache_gb='${oc.env:HOME}'", "paths.cache_gb"), ("trade", "capital='${oc.env:HOME}'", "capital"),
    ("new", "into='a\x00b'", "into"), ("report", "run='\x1b[31mred'", "run"), ("runs", "run='\u202eabc'", "run"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "override", "key"), MAPPINGS_AND_REFERENCES)
def test_a_value_inside_a_mapping_or_behind_a_reference_has_the_kind_of_its_key(command, override, key):
    with pytest.raises(ConfigError) as refused:
        compose(command, [*COMMANDS[command][: command == "trade"], override])
    assert str(refused.value).startswith(f"config: {key}=")
    assert "/root" not in str(refused.value)  # what the environment holds is no part of the line


def test_a_mapping_beside_another_key_does_not_hide_it():
    with pytest.raises(ConfigError, match="config: days='abc'"):
        compose("runs", ["days=abc", "paths={cache_gb:1}"])
    with pytest.raises(ConfigError, match="config: capital='abc'"):
        compose("trade", ["capital=abc", "costs={fee_bps:1}"])


@pytest.mark.parametrize("value", ["-1", "-0.5"])
def test_a_tolerance_is_no_less_than_nothing(value):
    with pytest.raises(ConfigError, match=r"config: tolerance\.cpu=.*; it takes a number from 0"):
        compose("reproduce", [f"tolerance.cpu={value}"])


def test_the_walk_finds_a_key_that_nobody_checks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("runs", "journal", "reproduce", "report", "new")
    assert walk(60, 20, small)[1] == []
    monkeypatch.setattr(kinds, "wrong_key", lambda *_: None)
    assert len(walk(60, 20, small)[1]) > 5
    monkeypatch.undo()
    monkeypatch.setattr(kinds, "hidden_text", lambda *_: None)
    assert ending("new", "into", "'a\x00b'") == "taken"


OWN_KINDS = [
    ("trade", "since=[1]"), ("trade", "until={a:1}"), ("trade", "since=-inf"), ("trade", "since=soon"),
    ("trade", "symbols={a:1}"), ("trade", "symbols=[[1]]"), ("fetch", "start=[1]"),
    ("fetch", "end=nan"), ("fetch", "symbols={a:1}"), ("daily", "date=[1]"), ("daily", "until=abc"),
    ("daily", "schedule.calendar={a:1}"), ("daily", "schedule.calendar=3"), ("daily", "schedule.pre=[1]"),
    ("daily", "clean.gigabytes.prices=-inf"), ("daily", "clean.gigabytes.report=[[1]]"),
    ("daily", "clean.gigabytes.labels=-1"), ("daily", "clean.sessions.prices=1.5"),
    ("daily", "clean.sessions.gates=-1"),
    ("daily", "horizons=[x]"), ("daily", "horizons=3"), ("daily", "preflight.keys=[1]"),
    ("doctor", "doctor.keys=[{a:1}]"),
    ("tune", "logger.fits=[[1]]"), ("daily", "agent={a:1}"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "override"), OWN_KINDS, ids=[" ".join(one) for one in OWN_KINDS])
def test_a_key_without_a_default_has_a_kind(command, override):
    with pytest.raises(ConfigError) as refused:
        compose(command, [*COMMANDS[command], override])
    assert str(refused.value).startswith(f"config: {override.partition('=')[0]}")


@pytest.mark.parametrize(
    ("command", "override"),
    [("trade", "since=2024-01-01"), ("trade", "until='2024-01-01T05:00+02:00'"), ("trade", "symbols=[BTCUSDT]"),
     ("fetch", "start=2021-06-30"), ("fetch", "symbols=BTC-USD"), ("daily", "date=2022-12-30"),
     ("daily", "horizons=[1]"),
     ("daily", "clean.gigabytes.prices=0.5"), ("daily", "clean.sessions.report=null"), ("daily", "schedule.pre=null")],
)  # fmt: skip
def test_what_such_a_key_means_is_taken(command, override):
    asked = OverridesParser.create().parse_override(override)
    config = compose(command, [*COMMANDS[command], override])
    assert OmegaConf.select(config, asked.key_or_group) == asked.value()


def test_every_key_without_a_default_that_no_constructor_takes_has_its_kind_in_one_list():
    loose = set()
    for command, others in COMMANDS.items():
        plain = OmegaConf.to_container(compose(command, others), resolve=False)
        followed = kinds._followed_by_arguments(plain)
        for key, value in leaves(plain):
            if value in (None, []) and key not in followed and not kinds._is_argument(plain, key):
                loose |= {key} - set(kinds.OPTIONAL)
    assert loose == set()


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\rb", "a\x00b", "a\x1b[31mb", "a\u202eb", "a\udcffb"])
@pytest.mark.parametrize(
    ("command", "key"), [("train", "paths.runs"), ("backtest", "bundle"), ("export", "name"), ("fetch", "path"),
                         ("trade", "name"), ("daily", "folder"), ("journal", "paths.ledger")],
)  # fmt: skip
def test_a_path_or_name_with_a_line_break_or_a_hidden_character_is_refused_with_its_key(command, key, text):
    others = [one for one in COMMANDS[command] if one.partition("=")[0] != key]
    with pytest.raises(ConfigError) as refused:
        compose(command, [*others, f"{key}='{text}'"])
    assert str(refused.value).startswith(f"config: {key}=")
    assert "\n" not in str(refused.value)


def test_a_question_may_have_several_lines():
    assert compose("train", ["question='a\nb'"]).question == "a\nb"
