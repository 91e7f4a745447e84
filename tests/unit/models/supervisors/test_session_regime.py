"""A regime of sessions at hourly bars: one observation a session, causal, the same bar by bar."""

import numpy as np
import pytest

from tradsys.core.errors import DataError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.market_regime import regime_from_json
from tradsys.models.regime import HmmRegime
from tradsys.models.supervisors.session_regime import SessionRegime
from tradsys.models.supervisors.supervised import SupervisedRegime, parts_of
from tradsys.research.sections.smoothed_regimes import smoothed_posterior, viterbi_path
from tradsys.serving.strategy import RegimeMask, View

MACRO = SessionRegime(
    HmmRegime(("vix",), n_states=2, names=("risk_on", "risk_off"), lookback=15, order_by="mean", n_seeds=2),
    clock="age",
    lookback_bars=31 * 24,
)
MARKET = HmmRegime(("ret",), n_states=2, names=("calm", "panic"), lookback=24, n_seeds=2)


def market(n_days=400, n_symbols=2, seed=0):
    """Hours of several symbols beside a daily value that becomes known at 22:00 on weekdays; the true state [R]."""
    rng = np.random.default_rng(seed)
    n = 24 * n_days
    hours = np.datetime64("2021-01-01T01", "us") + np.arange(n) * np.timedelta64(1, "h")
    day = np.arange(n_days)
    off = (day // 60) % 2 == 1
    daily = np.where(off, 3.4, 2.7) + rng.normal(0, 0.15, n_days)
    weekday = (day + 4) % 7 < 5  # 2021-01-01 was a Friday
    known = np.flatnonzero(weekday) * 24 + 21
    last = np.searchsorted(known, np.arange(n), side="right") - 1
    vix, age = np.full(n, np.nan), np.full(n, np.nan)
    vix[last >= 0] = daily[known[last[last >= 0]] // 24]
    age[last >= 0] = (np.arange(n) - known[last])[last >= 0]
    state = off[known[np.maximum(last, 0)] // 24]
    parts = []
    for k in range(n_symbols):
        ret = np.random.default_rng([seed, k]).normal(0, np.where(np.arange(n) // 500 % 2 == 1, 0.03, 0.005))
        parts.append(np.column_stack([vix, age, ret]))
    table = FeatureTable(
        symbol=np.repeat(np.arange(n_symbols, dtype=np.int32), n),
        time=np.tile(hours, n_symbols),
        segment=np.repeat(np.arange(n_symbols, dtype=np.int32), n),
        values=np.vstack(parts).astype(np.float32),
        names=("vix", "age", "ret"),
        symbols=tuple(f"C{k}" for k in range(n_symbols)),
    )
    return table, np.tile(state, n_symbols)


def samples(table, model, share=0.7):
    rows = np.flatnonzero(table.ready(model.lookback))
    rows = rows[table.time[rows] < table.time[0] + share * (table.time.max() - table.time[0])]
    nothing = np.zeros(len(rows))
    return Samples(table, rows, nothing.astype(np.int64), nothing + 1, rows - model.lookback + 1, rows, nothing)


@pytest.fixture(scope="module")
def done():
    table, state = market()
    model = SupervisedRegime(MARKET, MACRO)
    train = samples(table, model)
    return table, state, model.fit(train, train)


def test_it_finds_the_planted_state_out_of_sample_and_orders_it(done):
    table, state, model = done
    rows = np.flatnonzero(table.ready(MACRO.lookback) & (table.time > np.datetime64("2021-11-01")))
    belief = model.macro_.predict_proba(table, rows)
    assert ((belief[:, 1] > 0.5) == state[rows]).mean() > 0.9
    np.testing.assert_allclose(belief.sum(axis=1), 1)


def test_each_session_is_one_observation(done):
    """The oracle: the plain filter over the sessions' own values, the last fifteen, from the prior."""
    table, _, model = done
    row = 24 * 200 + 7
    sessions = [r for r in range(1, row + 1) if table.column("age")[r] < table.column("age")[r - 1]]
    values = table.select(["vix"]).values[sessions[-15:]]
    expected = model.macro_.regime_.filter(values)[-1]
    np.testing.assert_allclose(model.macro_.predict_proba(table, [row])[0], expected, rtol=1e-12)
    weekend = [r for r in range(row, row + 24 * 7) if table.column("age")[r] >= 24]
    same = model.macro_.predict_proba(table, weekend)
    assert len(np.unique(same[:, 0])) <= 2, "a weekend adds nothing: Friday's value counts once"


def test_the_future_changes_nothing_and_a_buffer_of_its_window_is_enough(done):
    table, _, model = done
    row = 24 * 250 + 3
    whole = model.predict_proba(table, [row])
    changed = table.values.copy()
    changed[row + 1 : len(changed) // 2] = [9.0, 0.0, 0.5]
    np.testing.assert_array_equal(model.predict_proba(table.with_values(changed), [row]), whole)
    cut = slice(row - model.lookback + 1, row + 1)
    buffer = FeatureTable(
        table.symbol[cut], table.time[cut], table.segment[cut], table.values[cut], table.names, table.symbols
    )
    np.testing.assert_array_equal(model.predict_proba(buffer, [len(buffer) - 1]), whole)


def test_fewer_sessions_than_wanted_are_read_and_none_is_unknown(done):
    table, _, model = done
    short = FeatureTable(
        table.symbol[:400], table.time[:400], table.segment[:400], table.values[:400], table.names, table.symbols
    )
    belief = model.macro_.predict_proba(short, np.array([20, 150]))
    assert np.isnan(belief[0]).all(), "nothing has become known yet"
    assert np.isfinite(belief[1]).all()


def test_hindsight_of_a_joint_regime_is_the_product_of_its_parts(done):
    table, state, model = done
    smoothed, path = smoothed_posterior(model, table), viterbi_path(model, table)
    rows = np.flatnonzero(table.ready(MACRO.lookback))
    np.testing.assert_allclose(smoothed[rows].sum(axis=1), 1)
    assert ((path[rows] % 2 == 1) == state[rows]).mean() > 0.95
    assert (smoothed[rows].argmax(axis=1) == path[rows]).mean() > 0.9


def test_it_comes_back_from_json_to_the_bit(done):
    table, _, model = done
    rows = np.flatnonzero(table.ready(model.lookback))[::97]
    again = regime_from_json(model.to_json())
    assert again.names == model.names == ("calm+risk_on", "calm+risk_off", "panic+risk_on", "panic+risk_off")
    np.testing.assert_array_equal(again.predict_proba(table, rows), model.predict_proba(table, rows))


def test_a_mask_blocks_every_joint_state_of_a_part():
    states = np.array(["calm+risk_on", "calm+risk_off", "panic+risk_off", "panic+risk_on"], dtype=object)
    nothing = np.zeros(4)
    view = View(nothing, nothing, None, states, nothing, nothing, nothing, 0.0)
    assert RegimeMask(["risk_off"]).allows(view).tolist() == [True, False, False, True]
    assert RegimeMask(["calm", "risk_off"]).allows(view).tolist() == [False, False, False, True]
    assert parts_of("calm") == ("calm",)


def test_names_that_clash_and_a_clock_that_never_falls_are_one_line(done):
    table = done[0]
    with pytest.raises(DataError, match="stand in both regimes"):
        SupervisedRegime(HmmRegime(("ret",), n_states=2, names=("risk_on", "wild")), MACRO)
    still = table.with_values(np.where(np.arange(3) == 1, 5.0, table.values))
    model = SessionRegime(MACRO.regime, "age")
    with pytest.raises(DataError, match="no session was published"):
        model.fit(samples(still, model), samples(still, model))
