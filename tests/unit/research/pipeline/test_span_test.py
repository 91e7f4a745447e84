"""The joint test from the ledger: order of batches, a repeated run spends nothing, idle strategies are no trials."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tradsys.evidence.joint_test import error_budget
from tradsys.research.pipeline.span_test import CHOSEN, STRATEGY, joint_tests_alone, joint_tests_on_span
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger

DAYS = 400
START = datetime(2024, 1, 1, tzinfo=UTC)
SPAN = (START + timedelta(days=1), START + timedelta(days=DAYS))


def noise(seed, drift=0.0):
    return np.random.default_rng(seed).normal(drift, 0.01, DAYS)


@pytest.fixture
def ledger(tmp_path):
    return TrialLedger(tmp_path / "ledger.db")


def record(ledger, run, purpose, series, span=SPAN, *, name=None, **settings):
    entry = LedgerEntry(
        purpose, name or str(series[0]), "data", *span, run=run, measure="return", periods_per_year=365.0, **settings
    )
    ledger.append(entry, series)


def answers(ledger, returns):
    return joint_tests_on_span(ledger, "data", SPAN, returns, returns)


def batches(found):
    return {name: (one.batch, one.n_in_batch) for name, one in found.items()}


def test_the_chosen_strategy_is_a_batch_of_its_own_and_runs_follow_in_order(ledger):
    a, b, c, d = (noise(k) for k in range(4))
    record(ledger, "first", CHOSEN, a)
    record(ledger, "first", STRATEGY, b)
    record(ledger, "first", STRATEGY, c)
    found = answers(ledger, {"a": a, "b": b, "c": c})
    assert batches(found) == {"a": (1, 1), "b": (2, 2), "c": (2, 2)}
    record(ledger, "second", CHOSEN, d)
    assert answers(ledger, {"d": d})["d"].batch == 3
    assert found["a"].level == error_budget(1)


def test_a_run_that_is_repeated_spends_nothing_and_gets_the_same_answer(ledger):
    a = noise(0, 0.002)
    record(ledger, "first", CHOSEN, a)
    before = answers(ledger, {"a": a})["a"]
    record(ledger, "again", CHOSEN, a)
    record(ledger, "other", CHOSEN, noise(1))
    after = answers(ledger, {"a": a})["a"]
    assert after == before
    assert before.passed


@pytest.mark.parametrize(
    "second", [{"config_digest": "dear"}, {"config_digest": "free", "code_sha": "other"}, {"config_digest": "free"}]
)
def test_a_run_that_is_resumed_with_another_result_is_a_later_try(ledger, second):
    """Its folder is the same; whoever went on until something passed would be at the first try for ever."""
    a, b, c, d = (noise(k) for k in range(4))
    for series, name, purpose in ((a, "sniper", CHOSEN), (b, "reckless", STRATEGY)):
        record(ledger, "run", purpose, series, name=name, config_digest="free")
    before = answers(ledger, {"sniper": a, "reckless": b})
    for series, name, purpose in ((c, "reckless", CHOSEN), (d, "sniper", STRATEGY)):
        record(ledger, "run", purpose, series, name=name, **second)
    assert batches(answers(ledger, {"reckless": c, "sniper": d})) == {"reckless": (3, 1), "sniper": (4, 1)}
    assert answers(ledger, {"sniper": a, "reckless": b}) == before  # what it found first stays as it was


def test_a_run_resumed_to_the_same_result_is_no_later_try(ledger):
    a, b = noise(0), noise(1)
    for digest in ("first", "with another question"):
        record(ledger, "run", CHOSEN, a, name="sniper", config_digest=digest)
        record(ledger, "run", STRATEGY, b, name="reckless", config_digest=digest)
    assert batches(answers(ledger, {"sniper": a, "reckless": b})) == {"sniper": (1, 1), "reckless": (2, 1)}


def test_paths_of_the_same_run_come_after_its_strategies(ledger):
    path, a = noise(0), noise(1)
    record(ledger, "first", "cpcv", path)
    record(ledger, "first", CHOSEN, a)
    assert answers(ledger, {"a": a})["a"].batch == 1
    record(ledger, "second", CHOSEN, noise(2))
    assert answers(ledger, {"b": noise(2)})["b"].batch == 3


def test_a_trial_of_other_periods_counts_as_a_batch_though_it_is_not_drawn(ledger):
    record(ledger, "first", CHOSEN, noise(0)[:300], (SPAN[0], START + timedelta(days=300)))
    a = noise(1)
    record(ledger, "second", CHOSEN, a)
    assert answers(ledger, {"a": a})["a"].batch == 2


def test_what_never_traded_is_no_trial(ledger):
    idle, a = np.zeros(DAYS), noise(1)
    record(ledger, "first", CHOSEN, idle)
    record(ledger, "first", STRATEGY, a)
    found = answers(ledger, {"idle": idle, "a": a})
    assert found["idle"].p_value is None
    assert "never traded" in found["idle"].reason
    assert found["a"].batch == 1
    assert answers(ledger, {"idle": idle})["idle"].reason


def test_without_a_ledger_all_are_one_first_batch():
    found = joint_tests_alone({"a": noise(0), "b": noise(1)})
    assert {one.batch for one in found.values()} == {1}
