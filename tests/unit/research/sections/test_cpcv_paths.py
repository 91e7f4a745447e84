import json
from dataclasses import replace

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.evidence.sharpe import sharpe_ratio
from tradsys.reports.run.path_charts import path_fan, path_sharpes
from tradsys.research.sections.cpcv import assemble, path_returns
from tradsys.samples.splits import CombinatorialPurged

HOURS, HORIZON = 1200, 5


@pytest.fixture
def samples():
    """Two symbols, hourly; a label lasts five bars."""
    rng = np.random.default_rng(0)
    clock = np.datetime64("2021-01-01T01", "us") + np.arange(HOURS) * np.timedelta64(3600, "s")
    table = FeatureTable(
        symbol=np.repeat(np.arange(2, dtype=np.int32), HOURS),
        time=np.tile(clock, 2),
        segment=np.repeat(np.arange(2, dtype=np.int32), HOURS),
        values=rng.normal(size=(2 * HOURS, 1)).astype(np.float32),
        names=("x",),
        symbols=("A", "B"),
    )
    rows = np.concatenate([np.arange(2, HOURS - HORIZON), HOURS + np.arange(2, HOURS - HORIZON)])
    ones = np.ones(len(rows))
    ret = rng.normal(0, 0.01, len(rows))
    return Samples(table, rows, (ret > 0).astype(int), ones, rows - 2, rows + HORIZON, ret)


@pytest.fixture
def splitter():
    return CombinatorialPurged(n_groups=6, n_test_groups=2)


def fold_values(splitter, samples, value):
    """`value(fold number, positions)` for each fold's test samples."""
    return [value(k, fold.test) for k, fold in enumerate(splitter.split(samples))]


def test_every_path_covers_every_sample_once_with_a_fold_that_tested_it(splitter, samples):
    marked = assemble(splitter, samples, fold_values(splitter, samples, lambda k, test: np.full(len(test), k)))
    assert marked.shape == (5, len(samples))
    group = splitter.groups(samples)
    for path in marked.astype(int):
        assert all(group[n] in splitter.test_groups[fold] for n, fold in enumerate(path))
    # no fold's verdict on a group stands in two paths
    for g in range(6):
        folds = marked[:, group == g]
        assert (folds == folds[:, :1]).all()
        assert len(set(folds[:, 0])) == 5


def test_values_reach_their_own_samples_also_with_classes(splitter, samples):
    numbered = assemble(splitter, samples, fold_values(splitter, samples, lambda k, test: test))
    assert (numbered == np.arange(len(samples))).all()
    proba = assemble(splitter, samples, fold_values(splitter, samples, lambda k, t: np.column_stack([t, -t])))
    assert proba.shape == (5, len(samples), 2)
    assert (proba[3, :, 1] == -np.arange(len(samples))).all()


def test_returns_equal_a_walk_over_trades(splitter, samples):
    rng = np.random.default_rng(1)
    held = fold_values(splitter, samples, lambda k, test: rng.choice([-1.0, 0.0, 0.5, 1.0], len(test)))
    found = path_returns(splitter, samples, held, round_trip_cost=0.001, periods_per_year=365)
    positions = assemble(splitter, samples, held)
    for path in (0, 4):
        booked: dict[str, float] = {}
        for n in range(len(samples)):
            known = samples.table.time[samples.end[n]] - np.timedelta64(1, "us")
            gain = positions[path, n] * (np.exp(samples.ret[n]) - 1) - abs(positions[path, n]) * 0.001
            # two symbols with a decision at each of six bars are open at once at most
            booked[str(known)[:10]] = booked.get(str(known)[:10], 0.0) + gain / 12
        assert [str(d) for d in found.days] == sorted(booked)
        np.testing.assert_allclose(found.returns_DP[:, path], [booked[d] for d in sorted(booked)], atol=1e-15)
        assert found.sharpe_P[path] == pytest.approx(sharpe_ratio(found.returns_DP[:, path]) * np.sqrt(365))


def test_a_short_earns_the_fall_of_the_price_and_no_more(splitter, samples):
    """A label's log return is in its own direction: exp(ret) - 1 of a short is 25 % where a price fell by 20 %."""
    side = np.where(np.arange(len(samples)) % 2 == 0, -1, 1).astype(np.int8)
    moved = np.random.default_rng(4).normal(0, 0.05, len(samples)).clip(-0.5, 0.5)  # of the price, as a share
    sided = replace(samples, ret=side * np.log1p(moved))
    ones = fold_values(splitter, sided, lambda k, test: np.ones(len(test)))
    found = path_returns(splitter, sided, ones, round_trip_cost=0.0, periods_per_year=365, side=side)
    np.testing.assert_allclose(12 * found.returns_DP.sum(axis=0), (side * moved).sum(), rtol=1e-12)


def test_a_seer_wins_on_every_path_and_costs_take_what_a_coin_has(splitter, samples):
    seer = fold_values(splitter, samples, lambda k, test: np.sign(samples.ret[test]))
    assert (path_returns(splitter, samples, seer, round_trip_cost=0.0, periods_per_year=365).sharpe_P > 5).all()
    rng = np.random.default_rng(2)
    coin = fold_values(splitter, samples, lambda k, test: rng.choice([-1.0, 1.0], len(test)))
    paid = path_returns(splitter, samples, coin, round_trip_cost=0.01, periods_per_year=365).as_dict()
    assert paid["share_positive"] == 0
    assert paid["worst"] <= paid["low"] <= paid["median"] <= paid["high"] < 0


def test_a_path_without_positions_has_a_sharpe_of_zero_and_all_is_json(splitter, samples):
    idle = fold_values(splitter, samples, lambda k, test: np.zeros(len(test)))
    reported = path_returns(splitter, samples, idle, round_trip_cost=0.001, periods_per_year=365).as_dict()
    assert reported["sharpe"] == [0.0] * 5
    json.dumps(reported, allow_nan=False)


def test_figures_show_every_path(splitter, samples):
    rng = np.random.default_rng(3)
    coin = fold_values(splitter, samples, lambda k, test: rng.choice([-1.0, 1.0], len(test)))
    report = {"paths": path_returns(splitter, samples, coin, round_trip_cost=0.0, periods_per_year=365).as_dict()}
    fan, spread = path_fan(report), path_sharpes(report)
    single = [t for t in fan.data if t.legendgroup == "paths"]
    assert len(single) == 5
    np.testing.assert_allclose(single[2].y, report["paths"]["curves"][2], rtol=1e-5)
    assert sum(spread.data[0].y) == 5
    np.testing.assert_allclose(spread.data[1].x, report["paths"]["sharpe"], rtol=1e-5)
    flat = {"paths": report["paths"] | {"sharpe": [0.0] * 5, "median": 0.0}}
    assert sum(path_sharpes(flat).data[0].y) == 5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f[:-1], "14 folds, the splitter has 15"),
        (lambda f: [f[0][:-1], *f[1:]], "fold 0 has"),
        (lambda f: [f[0] * np.nan, *f[1:]], "not finite"),
        (lambda f: [f[0] * 3, *f[1:]], r"one in \[-1, 1\]"),
        (lambda f: [np.column_stack([v, v]) for v in f], "positions"),
    ],
)
def test_refuses(splitter, samples, spoil, said):
    held = spoil(fold_values(splitter, samples, lambda k, test: np.ones(len(test))))
    with pytest.raises(DataError, match=said):
        path_returns(splitter, samples, held, round_trip_cost=0.0, periods_per_year=365)


def test_refuses_too_few_days(samples):
    splitter = CombinatorialPurged(n_groups=3, n_test_groups=1)
    early = samples.take(samples.table.time[samples.rows] < np.datetime64("2021-01-12"))
    ones = fold_values(splitter, early, lambda k, test: np.ones(len(test)))
    with pytest.raises(DataError, match="needs 20"):
        path_returns(splitter, early, ones, round_trip_cost=0.0, periods_per_year=365)
