"""Settings, aligned datasets and the sentences of a comparison; its runs are in tests/integration."""

import importlib
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from tradsys.config.compose import as_dict, build, compose
from tradsys.core.errors import DataError, TradsysError
from tradsys.research.comparisons.aligned_datasets import aligned_datasets, check_classes
from tradsys.research.comparisons.comparison import run_jobs
from tradsys.research.comparisons.settings import ComparisonSettings, Variant
from tradsys.research.comparisons.table import conclusions
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.splits import WalkForward
from tradsys.samples.weights import average_uniqueness

SPLIT = WalkForward(n_folds=2)
MARKET = ["data.n_bars=2200", "data.source.symbols=[SYN0]"]


def settings(**changed):
    given = {
        "name": "s",
        "question": "?",
        "reference": "a",
        "variants": {"a": [], "b": ["x=1"]},
        "split": SPLIT,
        "seeds": [0],
    }
    return ComparisonSettings(**given | changed)


def composed(*overrides):
    config = compose("train", [*MARKET, *overrides])
    return Experiment.of(build(config)), as_dict(config)


def test_an_variant_is_a_list_or_a_mapping_and_inner_lists_are_spliced():
    choices = settings(
        seeds=[3, 4],
        variants={
            "a": ["x=1", ["y=2", ["z=3"]]],
            "b": {"overrides": [], "seeds": [0]},
            "c": {"overrides": [], "against": "b"},
        },
    ).choices
    assert choices["a"].overrides == ("x=1", "y=2", "z=3")
    assert choices["a"].seeds == (3, 4)
    assert [choices[n].seeds for n in "bc"] == [(0,), (3, 4)]
    assert [choices[n].against for n in "abc"] == [None, "a", "b"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"variants": {"a": []}}, "needs two"),
        ({"reference": "z"}, "reference 'z'"),
        ({"seeds": []}, r"seeds \[\]"),
        ({"seeds": [-1]}, "integers from 0"),
        ({"variants": {"a": [], "b": {"override": []}}}, "'override'"),
        ({"variants": {"a": [], "b": None}}, "list of key=value"),
        ({"variants": {"a": [], "b": {"overrides": [], "against": "b"}}}, "another one"),
        ({"confidence": 1.0}, "confidence"),
        ({"n_draws": 10}, "n_draws=10"),
    ],
)
def test_settings_are_refused_with_their_values(changed, said):
    with pytest.raises(TradsysError, match=said):
        settings(**changed)


def test_what_shows_or_speeds_up_does_not_change_an_variants_digest():
    experiment, config = composed("model=lightgbm")

    def digest(**model):
        return Variant("a", experiment, config | {"model": config["model"] | model}, (0,), None).digest("panel")

    assert digest() == digest(n_threads=4) == digest(seed=9)
    assert digest() != digest(n_estimators=3)
    assert digest() != Variant("a", experiment, config, (0,), None).digest("other panel")


def test_variants_of_one_question_meet_on_the_rows_that_all_have():
    """A longer window and a feature that warms up later cost every variant the same rows; another label costs none."""
    late = "features.extra=[{_target_: tradsys.features.price.SmaDistance, bars: 500}]"
    variants = {
        "plain": composed("model=logistic"),
        "late": composed("model=logistic", late),
        "window": composed("model=transformer", "model.lookback=40"),
        "wide": composed("model=logistic", "labels.upper=2.5"),
    }
    judged = aligned_datasets(variants, SPLIT)
    rows = {name: one.dataset.samples.rows for name, one in judged.items()}
    assert np.array_equal(rows["plain"], rows["late"])
    assert np.array_equal(rows["plain"], rows["window"])
    assert judged["plain"].dataset is judged["window"].dataset  # same table, kept once
    assert rows["plain"].min() >= 499
    assert judged["wide"].question != judged["plain"].question
    assert rows["wide"].min() < rows["plain"].min()
    for a, b in zip(judged["plain"].dataset.folds, judged["late"].dataset.folds, strict=True):
        assert np.array_equal(a.test, b.test)


def test_variants_of_other_weights_meet_on_the_same_rows():
    """Weights change what is learned, not what is asked: same rows, outcomes and folds, datasets of their own."""
    variants = {"unique": composed("model=logistic"), "alike": composed("model=logistic", "weighting=none")}
    judged = aligned_datasets(variants, SPLIT)
    unique, alike = (judged[name].dataset.samples for name in variants)
    assert judged["unique"].question == judged["alike"].question
    assert judged["unique"].digest != judged["alike"].digest
    assert np.array_equal(unique.rows, alike.rows)
    assert np.array_equal(unique.y, alike.y)
    np.testing.assert_array_equal(alike.weight, np.ones(len(alike)))
    np.testing.assert_allclose(unique.weight, average_uniqueness(unique.rows + 1, unique.end))
    for own in ("train", "valid", "test"):
        assert np.array_equal(*(getattr(judged[name].dataset.folds[1], own) for name in variants))


def test_a_variant_that_learns_from_more_names_is_judged_on_the_same_rows():
    """Two names more in training, and columns of theirs: neither changes what is asked of the first."""
    more = ["data.source.symbols=[SYN0,SYN1,SYN2]", "features.market_symbol=SYN0"]
    late = "features.extra=[{_target_: tradsys.features.price.SmaDistance, bars: 500}]"
    variants = {
        "few": composed("model=logistic", "features.market_symbol=SYN0", "events=clock", "events.every_hours=2"),
        "more": composed("model=logistic", late, *more, "events=clock", "events.every_hours=2"),
    }
    splitter = settings(tested=["SYN0"]).splitter
    judged = aligned_datasets(variants, splitter, ("SYN0",))
    few, many = (judged[name].dataset for name in variants)
    assert judged["few"].question == judged["more"].question
    assert set(few.samples.table.symbols) < set(many.samples.table.symbols)
    for a, b in zip(few.folds, many.folds, strict=True):
        for part in ("valid", "test"):
            mine, theirs = few.samples.take(getattr(a, part)), many.samples.take(getattr(b, part))
            assert set(theirs.table.symbol[theirs.rows]) == {0}
            assert np.array_equal(mine.time, theirs.time)
            assert np.array_equal(mine.y, theirs.y)
        assert set(many.samples.table.symbol[many.samples.rows[b.train]]) == {0, 1, 2}
        assert many.samples.table.time[many.samples.end[b.train]].max() < few.samples.time[a.test].min()
    alone = aligned_datasets(variants, SPLIT)  # all names judged: another question each, as ever
    assert alone["few"].question != alone["more"].question


def test_more_names_whose_decisions_move_the_folds_are_refused():
    variants = {
        "few": composed("model=logistic", "features.market_symbol=SYN0"),
        "more": composed("model=logistic", "data.source.symbols=[SYN0,SYN1]", "features.market_symbol=SYN0"),
    }
    with pytest.raises(
        DataError, match=r"'more' and 'few' are tested on the same symbols, but fold 0 .* \(events=clock\)"
    ):
        aligned_datasets(variants, settings(tested=["SYN0"]).splitter, ("SYN0",))


def test_held_out_and_tested_symbols_exclude_each_other():
    assert settings(tested=["A"]).tested_symbols == ("A",)
    assert settings(held_out=["B"]).tested_symbols == ("B",)
    with pytest.raises(TradsysError, match=r"held_out=\['B'\] with tested=\['A'\]"):
        settings(tested=["A"], held_out=["B"])


def test_an_unknown_weighting_is_refused_before_any_data_is_read():
    with pytest.raises(TradsysError, match="weighting='uniform'; it is one of uniqueness, return, liquidity, none"):
        composed("weighting=uniform")


@pytest.fixture(scope="module")
def dataset():
    return aligned_datasets({"a": composed("model=logistic")}, SPLIT)["a"].dataset


def test_a_part_of_one_class_is_named(dataset):
    y = dataset.samples.y.copy()
    y[dataset.folds[1].test] = 1
    with pytest.raises(DataError, match=r"variant 'steep', fold 1: all \d+ test samples are class \[1\]"):
        check_classes("steep", replace(dataset, samples=replace(dataset.samples, y=y)))


@pytest.mark.parametrize(("n_jobs", "backend"), [(1, "loky"), (2, "threading"), (3, "sequential")])
def test_every_job_runs_once(n_jobs, backend):
    assert sorted(run_jobs(abs, [-3, -1, -2], n_jobs, backend)) == [1, 2, 3]


def test_workers_load_at_first_what_their_caller_has_and_a_replaced_one_leaves_no_job_undone(monkeypatch):
    def grown(job):  # so large that loky replaces the worker after the job, be it the first
        from joblib.externals.loky import process_executor

        process_executor._MEMORY_LEAK_CHECK_DELAY, process_executor._MAX_MEMORY_LEAK_SIZE = 0.0, -1
        return job, os.getpid(), "tabnanny" in sys.modules, "zipapp" in sys.modules

    importlib.import_module("tabnanny")
    monkeypatch.setattr("tradsys.research.comparisons.comparison.LARGE", ("tabnanny", "zipapp"))
    monkeypatch.delitem(sys.modules, "zipapp", raising=False)
    done = list(run_jobs(grown, range(5), 2, "loky"))
    assert sorted(job for job, *_ in done) == [0, 1, 2, 3, 4]
    assert len({pid for _, pid, *_ in done}) > 2
    assert {tuple(loaded) for _, _, *loaded in done} == {(True, False)}


class Held:
    """As much of a variant as the sentences read."""

    def __init__(self, name, n_seeds, own_rows=False, against="a"):
        self.name, self.seeds, self.own_rows, self.against = name, tuple(range(n_seeds)), own_rows, against


def said(value, low, high, p_holm=0.01, needed=None, **held):
    from types import SimpleNamespace

    from tradsys.evidence.bootstrap import Estimate
    from tradsys.evidence.paired import Difference

    gap = Difference(Estimate(value, low, high, None if low is not None else "too short"), 0.01, p_holm, 0, 0, needed)
    variants = {"a": Held("a", 3, against=None), "b": Held("b", 3, **held)}
    (line,) = conclusions(SimpleNamespace(difference={"b": gap}), variants, "a", 0.95)
    return line["kind"], line["text"]


def answers_to(_):
    return signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_of_a_terminal_is_left_to_the_caller_of_the_workers(monkeypatch):
    """A worker that only loads its libraries answered it with a traceback."""
    importlib.import_module("tabnanny")
    monkeypatch.setattr("tradsys.research.comparisons.comparison.LARGE", ("tabnanny",))  # which ones does not matter
    for answer, blocked in run_jobs(answers_to, range(2), 2, "loky"):
        assert answer is signal.SIG_IGN
        assert not blocked & {signal.SIGINT, signal.SIGTERM}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


def test_conclusions_follow_the_interval():
    from tradsys.evidence.paired import Needed

    assert said(0.003, 0.001, 0.005) == ("better", "b beats a by 0.0030 (0.0010 to 0.0050), 3 seeds")
    assert said(-0.003, -0.005, -0.001) == ("worse", "a beats b by 0.0030 (0.0010 to 0.0050), 3 seeds")
    text = said(0.003, 0.001, 0.005, p_holm=0.2)[1]
    assert text.endswith("; but p is 0.20 after Holm over 1 comparisons, so it may be chance")
    none = "no difference shown between b and a (+0.0020, -0.0010 to +0.0050, 3 seeds)"
    assert said(0.002, -0.001, 0.005, needed=Needed(n_seeds=9)) == ("none", f"{none}; 9 seeds would be needed")
    assert said(0.002, -0.001, 0.005, needed=Needed(times_the_record=3.21))[1] == (
        f"{none}; no number of seeds would show it on this record: 3.3 times the years would be needed"
    )
    assert said(0.002, None, None)[0] == "unknown"
    assert "each on its own rows" in said(0.003, 0.001, 0.005, own_rows=True)[1]
