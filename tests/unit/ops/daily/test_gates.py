from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tradsys.core.errors import TradsysError
from tradsys.ops.daily.gates import MEASURES, Gates, Measure, Rule, outcome_of, stopped, withheld

HORIZONS = ["1d", "5d", "20d"]
RULES = {
    key: value
    for key, value in yaml.safe_load(
        (Path(__file__).parents[4] / "conf" / "gates" / "daily.yaml").read_text(encoding="utf-8")
    )["rules"].items()
}
GOOD = [
    *(Measure("auc", 0.56, h, h) for h in HORIZONS),
    *(Measure("training_rows", 300_000.0, h, h) for h in HORIZONS),
    Measure("coverage", 0.99),
    Measure("stale_prices", 0.0),
    Measure("duplicated_rows", 0.0),
    Measure("drift", 0.7),
    Measure("disk_gb", 50.0),
]


def checked(*changed: Measure):
    """The good day with these measures in place of its own."""
    keys = {(m.gate, m.subject) for m in changed}
    return Gates(RULES).check([m for m in GOOD if (m.gate, m.subject) not in keys] + list(changed))


def outcome(gate: str, value: float | None, subject: str | None = None) -> str:
    return next(c.outcome for c in checked(Measure(gate, value, subject)) if (c.gate, c.subject) == (gate, subject))


def test_the_configured_gates_are_those_of_the_day():
    assert set(RULES) == set(MEASURES)
    assert all(check.outcome == "pass" for check in checked())
    assert outcome_of(checked()) == "pass"


@pytest.mark.parametrize(
    ("gate", "subject", "stop", "warn", "good"),
    [
        ("auc", "5d", 0.5199, 0.52, 0.53),
        ("training_rows", "5d", 1999, 2000, 10000),
        ("coverage", None, 0.799, 0.80, 0.95),
        ("stale_prices", None, 0.101, 0.10, 0.02),
        ("duplicated_rows", None, 0.051, 0.05, 0.01),
        ("drift", None, 0.991, 0.99, 0.90),
        ("disk_gb", None, 0.99, 1.0, 5.0),
    ],
)
def test_a_value_at_its_bound_is_still_on_the_better_side(gate, subject, stop, warn, good):
    assert (outcome(gate, stop, subject), outcome(gate, warn, subject), outcome(gate, good, subject)) == (
        "stop",
        "warn",
        "pass",
    )


def test_a_horizon_that_fails_is_withheld_and_the_others_speak():
    checks = checked(Measure("auc", 0.504, "1d", "1d"), Measure("training_rows", 100.0, "1d", "1d"))
    assert list(withheld(checks)) == ["1d"]
    assert "AUC on the test sessions 0.504, stops below 0.520" in withheld(checks)["1d"]
    assert "training rows 100" in withheld(checks)["1d"]
    assert stopped(checks, HORIZONS) == []
    assert outcome_of(checks) == "warn"


def test_the_day_stops_where_no_horizon_is_left():
    checks = checked(*(Measure("auc", 0.51, h, h) for h in HORIZONS))
    assert [line.partition(":")[0] for line in stopped(checks, HORIZONS)] == HORIZONS


def test_a_gate_of_the_day_stops_it_alone():
    assert stopped(checked(Measure("coverage", 0.5, None, "250 of 500")), HORIZONS) == [
        "members with every feature 50.0%, stops below 80.0% (250 of 500)"
    ]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_not_known_never_passes_for_a_good_one(value):
    assert outcome("auc", value, "1d") == "stop"
    assert outcome("coverage", value) == "stop"
    assert outcome("drift", value) == "warn"  # as conf says
    assert "not known" in next(c.said for c in checked(Measure("coverage", value)) if c.gate == "coverage")


def test_a_gate_that_nobody_measured_stops_the_day():
    checks = Gates(RULES).check([m for m in GOOD if m.gate != "coverage"])
    assert any("not measured" in line for line in stopped(checks, HORIZONS))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_value_never_has_a_worse_outcome(stop, warn, value):
    rule = Rule(stop_below=min(stop, warn), warn_below=max(stop, warn))
    order = {"stop": 0, "warn": 1, "pass": 2}
    assert order[rule.outcome(value)[0]] <= order[rule.outcome(min(1.0, value + 0.1))[0]]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"acu": {"stop_below": 0.5}}, r"unknown gate \['acu'\]"),
        ({"auc": {"stop_under": 0.5}}, r"auc has \['stop_under'\]"),
        ({"auc": {"stop_below": 0.53, "warn_below": 0.52}}, "a warning comes before the stop"),
        ({"drift": {"stop_above": 0.9, "warn_above": 0.95}}, "a warning comes before the stop"),
        ({"drift": {"unknown": "maybe"}}, "unknown is pass, warn or stop"),
    ],
)
def test_rules_that_could_not_work_are_refused(rules, said):
    with pytest.raises(TradsysError, match=said):
        Gates(rules)


@pytest.mark.parametrize("value", ["abc", [], {}, [1, 2], True])
@pytest.mark.parametrize("key", ["stop_below", "warn_above"])
def test_a_bound_of_another_kind_is_refused_by_its_key(key, value):
    with pytest.raises(TradsysError, match=rf"gates\.rules\.auc\.{key}=.*; a bound is a number"):
        Gates({"auc": {key: value}})


def test_a_rule_without_bounds_passes_everything_known():
    assert asdict(Rule())["stop_below"] is None
    assert Rule().outcome(-5.0) == ("pass", None)


@pytest.mark.parametrize("bound", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", ["stop_below", "warn_below", "stop_above", "warn_above"])
def test_a_bound_that_nothing_reaches_is_refused(name, bound):
    with pytest.raises(TradsysError, match=f"{name} is a finite number; null leaves it out"):
        Rule(**{name: bound})
