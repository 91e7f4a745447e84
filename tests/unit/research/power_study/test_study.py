"""Counting verdicts: hand-worked tables, the power's crossing, and a study that goes on where it was stopped."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from tradsys.core.errors import TradsysError
from tradsys.evidence.multiple_testing import wilson_interval
from tradsys.market.synthetic import SyntheticMarket
from tradsys.models.baseline import BaseRate
from tradsys.models.linear import LogisticRegression
from tradsys.reports.power_study_page import conclusions, markdown, study_table
from tradsys.research.power_study import study as module
from tradsys.research.power_study.markets import EVALUATIONS
from tradsys.research.power_study.simulated_research import MarketRow, SpanEvaluation, at_levels
from tradsys.research.power_study.study import (
    StudySettings,
    flat,
    is_broken,
    mean_of_markets,
    monotone,
    study,
    summarise,
)
from tradsys.serving.strategy import BreakEvenRule, Profile, ThresholdRule

LEVELS = {"plain": [0.6, 0.9], "even": [-0.1, 0.1]}
PROFILES = {"plain": Profile(ThresholdRule(0.5, "quantile"), size=0.5), "even": Profile(BreakEvenRule())}


def row(edge, seed, won_at=None, sharpe=1.0):
    looks = tuple(
        SpanEvaluation(name, 1, 10 * (k + 1), k + 1, "edge" if name == won_at else "no edge", 0.5, ())
        for k, name in enumerate(EVALUATIONS)
    )
    kind = "edge" if won_at else "no edge"
    return MarketRow(edge, seed, kind, looks, sharpe=sharpe, years=3.0, test_years=1.0, code_sha="abc")


def refused(edge, seed):
    return MarketRow(edge, seed, "refused", reason="too few candidates", code_sha="abc")


def settings(**changes):
    return replace(StudySettings("s", [0.0], 4, LEVELS, n_jobs=0), **changes)


def test_a_market_counts_from_the_look_that_won_on():
    rows = [row(0.0, 0, "chosen"), row(0.0, 1, "levels"), row(0.0, 2), refused(0.0, 3)]
    (null,) = summarise(rows, settings())["by_edge"]
    assert {look["look"]: look["n_edge"] for look in null["looks"]} == {
        "chosen": 1,
        "profiles": 1,
        "levels": 2,
        "arms": 2,
    }
    last = null["looks"][-1]
    assert last["share"] == {"value": 0.5, **dict(zip(("low", "high"), wilson_interval(2, 4), strict=True))}
    assert (last["n"], null["n_refused"], last["n_trials"], last["n_effective"]) == (4, 1, 40, 4)
    assert null["verdicts"] == {"edge": 2, "no edge": 1, "refused": 1}


@pytest.mark.parametrize(("n_false", "broken"), [(0, False), (2, False), (3, True)])
def test_the_promise_is_five_percent(n_false, broken):
    rows = [row(0.0, k, "arms" if k < n_false else None) for k in range(40)]
    summary = summarise(rows, settings(n_markets=40)) | {"folder": "f"}
    assert is_broken(summary) == broken
    (line,) = conclusions(summary)
    assert ("BROKEN" in line, "kept" in line) == (broken, not broken)
    assert f"{n_false} of 40" in line


def test_a_study_without_a_null_market_breaks_no_promise():
    summary = summarise([row(0.3, 0, "arms"), row(0.4, 0, "arms")], settings(edges=[0.3, 0.4], n_markets=1))
    assert summary["false_edges"] is None
    assert not is_broken(summary)


def curve(found_by_edge, n=10):
    """Rows of which so many per edge were found; Sharpe is ten times the edge."""
    return [
        row(edge, k, "arms" if k < found else None, sharpe=10 * edge)
        for edge, found in found_by_edge.items()
        for k in range(n)
    ]


def smallest(found_by_edge, n=10):
    chosen = settings(edges=list(found_by_edge), n_markets=n)
    return summarise(curve(found_by_edge, n), chosen)["smallest"]


def test_the_smallest_edge_found_is_interpolated():
    reported = smallest({0.1: 0, 0.2: 5, 0.3: 10})
    assert reported["edge"]["value"] == pytest.approx(0.26)  # 50 % at 0.2, 100 % at 0.3: 80 % three fifths of the way
    assert reported["sharpe"]["value"] == pytest.approx(2.6)
    assert reported["edge"]["low"] < 0.26 < reported["edge"]["high"]


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_mean_of_few_markets_has_students_interval(n):
    rng = np.random.default_rng(n)
    found = [mean_of_markets(rng.normal(size=n), 0.9) for _ in range(3000)]
    assert np.mean([one["low"] <= 0 <= one["high"] for one in found]) == pytest.approx(0.9, abs=0.02)


def test_one_market_shows_no_interval_instead_of_one_without_width():
    assert mean_of_markets(np.array([1.5]), 0.95) == {"value": 1.5, "low": None, "high": None}


def test_edges_out_of_order_are_the_same_curve():
    assert smallest({0.3: 10, 0.1: 0, 0.2: 5}) == smallest({0.1: 0, 0.2: 5, 0.3: 10})


def test_an_edge_that_no_market_or_every_market_shows_has_no_crossing():
    none = smallest({0.1: 0, 0.2: 1})
    every = smallest({0.1: 10, 0.2: 10})
    assert none["edge"] == none["sharpe"] == every["edge"] == {"value": None, "low": None, "high": None}


def test_a_dip_of_the_curve_is_noise():
    # pooled: 4 and 2 become 3 each, so the crossing lies between 30 % at 0.3 and 90 % at 0.4
    reported = smallest({0.2: 4, 0.3: 2, 0.4: 9})
    assert reported["edge"]["value"] == pytest.approx(0.3 + 0.1 * (0.8 - 0.3) / 0.6)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_monotone_is_isotonic_regression(values):
    expected = IsotonicRegression().fit_transform(np.arange(len(values)), values)
    np.testing.assert_allclose(monotone(np.array(values)), expected, atol=1e-9)


def test_every_profile_stands_at_every_level():
    grid = at_levels(PROFILES, LEVELS)
    assert {k: list(v) for k, v in grid.items()} == {
        "plain": ["plain 0.6", "plain 0.9"],
        "even": ["even -0.1", "even 0.1"],
    }
    assert grid["plain"]["plain 0.9"] == Profile(ThresholdRule(0.9, "quantile"), size=0.5)
    assert grid["even"]["even -0.1"].rule == BreakEvenRule(-0.1)


def test_settings_refuse_what_counts_nothing():
    for wrong in ({"edges": []}, {"edges": [0.1, 0.1]}, {"n_markets": 0}, {"n_jobs": -1}):
        with pytest.raises(TradsysError, match="study: "):
            settings(**wrong)


def test_markets_come_in_rounds_of_edges():
    chosen = settings(edges=[0.1, 0.3], n_markets=2, first_seed=5)
    assert chosen.markets == [(0.1, 5), (0.3, 5), (0.1, 6), (0.3, 6)]


def composed(**changes):
    parts = {
        "data": {"source": SyntheticMarket()},
        "baselines": {"base_rate": BaseRate(), "logistic": LogisticRegression()},
        "strategy": PROFILES,
    }
    return SimpleNamespace(**parts | changes)


def config(**changes):
    return {"seed": 1, "paths": {"runs": "a"}, "study": {"levels": LEVELS, "n_markets": 3}} | changes


class Lab:
    """Stands in for the research of one market, and may be interrupted."""

    def __init__(self, stop_at=None):
        self.asked, self.stop_at = [], stop_at

    def __call__(self, experiment, levels, config, edge, seed):
        self.asked.append(seed)
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        return row(edge, seed, "levels" if seed == 1 else None)


def test_an_interrupted_study_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_market", Lab())
    whole = study(composed(), settings(), tmp_path / "whole", config())
    monkeypatch.setattr(module, "run_market", Lab(stop_at=3))
    with pytest.raises(KeyboardInterrupt):
        study(composed(), settings(), tmp_path / "parts", config())
    again = Lab()
    monkeypatch.setattr(module, "run_market", again)
    resumed = study(composed(), settings(), tmp_path / "parts", config())
    assert again.asked == [2, 3]
    assert {k: v for k, v in resumed.items() if k != "folder"} == {k: v for k, v in whole.items() if k != "folder"}
    assert resumed["by_edge"][0]["looks"][-1]["n_edge"] == 1
    third = Lab()
    monkeypatch.setattr(module, "run_market", third)
    grown = study(composed(), settings(n_markets=6), tmp_path / "parts", config(study={"levels": LEVELS}))
    assert third.asked == [4, 5]
    assert grown["folder"] == resumed["folder"]


def test_what_decides_a_row_begins_a_new_study(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_market", Lab())
    first = study(composed(), settings(), tmp_path, config())
    moved = study(composed(), settings(), tmp_path, config(paths={"runs": "b"}))
    other = study(composed(), settings(), tmp_path, config(seed=2))
    assert first["folder"] == moved["folder"] != other["folder"]


def test_what_is_left_behind_reads_back(tmp_path, monkeypatch):
    import polars as pl

    monkeypatch.setattr(module, "run_market", Lab())
    reported = study(composed(), settings(), tmp_path, config())
    place = tmp_path / reported["folder"].rpartition("/")[2]
    kept = pl.read_parquet(place / "rows.parquet")
    assert kept["levels_verdict"].to_list() == ["no edge", "edge", "no edge", "no edge"]
    assert kept["arms_n_trials"].to_list() == [40] * 4
    assert json.loads((place / "summary.json").read_text()) == reported
    for page in ("study.md", "study.html"):
        assert "25.0 %" in (place / page).read_text().replace("&nbsp;", " ")
    assert "4.6 to 69.9 %" in markdown(reported)  # Wilson, 1 of 4
    assert study_table(reported).row_count == len(EVALUATIONS)


def test_a_refused_market_has_its_reason_in_the_rows():
    kept = flat([refused(0.0, 0), row(0.0, 1)])
    assert kept["reason"].to_list() == ["too few candidates", ""]
    assert kept["arms_verdict"].to_list() == [None, "no edge"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"source": object()}}, "data are not synthetic"),
        ({"baselines": {"base_rate": BaseRate()}}, "no candidates"),
        ({"strategy": {"plain": PROFILES["plain"]}}, "levels"),
    ],
)
def test_a_study_that_could_say_nothing_is_refused(changes, words, tmp_path):
    with pytest.raises(TradsysError, match=words):
        study(composed(**changes), settings(), tmp_path, config())
