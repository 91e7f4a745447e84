import json
from dataclasses import replace

import numpy as np
import pytest

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.market_regime import MarketRegime, regime_from_json
from tradsys.models.regime import HmmRegime

LOOKBACK, N_DATES = 15, 900
HMM = HmmRegime(columns=("ret",), n_states=2, names=("calm", "wild"), lookback=LOOKBACK, n_seeds=2, max_iter=40)
REGIME = MarketRegime(HMM, "SPY")


def panel(seed: int = 0, n_names: int = 6) -> tuple[FeatureTable, np.ndarray]:
    """Names of pure noise around a market whose volatility changes every 150 days; and where it is high [T].

    `signal` tells in calm days and misleads in wild ones; AAA lacks the first 100 days, as a later listing does.
    """
    rng = np.random.default_rng(seed)
    wild = (np.arange(N_DATES) // 150) % 2 == 1
    market = rng.normal(size=N_DATES) * np.where(wild, 4.0, 1.0)
    symbols = (*(f"{c}{c}{c}" for c in "ABCDEF"[:n_names]), "SPY")
    blocks, codes, days = [], [], []
    for k, symbol in enumerate(symbols):
        own = np.arange(100 if symbol == "AAA" else 0, N_DATES)
        ret = market[own] if symbol == "SPY" else rng.normal(size=len(own)) * rng.choice([0.5, 8.0], len(own))
        blocks.append(np.column_stack([rng.normal(size=len(own)), ret]))
        codes.append(np.full(len(own), k))
        days.append(own)
    day = np.concatenate(days)
    code = np.concatenate(codes).astype(np.int32)
    time = np.datetime64("2020-01-01T21:00", "us") + day * np.timedelta64(1, "D")
    return FeatureTable(code, time, code, np.vstack(blocks).astype(np.float32), ("signal", "ret"), symbols), wild


def samples(table: FeatureTable, wild: np.ndarray, seed: int = 0, horizon: int = 2) -> tuple[Samples, Samples]:
    """All names' days but the market's; the first 600 days train, the last validate."""
    day = ((table.time - table.time.min()) // np.timedelta64(1, "D")).astype(int)
    last = np.append(table.symbol[1:] != table.symbol[:-1], True)
    left = np.minimum.accumulate(np.where(last, np.arange(len(table)), len(table))[::-1])[::-1] - np.arange(len(table))
    rows = np.flatnonzero((table.symbol != table.symbols.index("SPY")) & (left >= horizon) & (day >= 120))
    logit = 1.5 * table.column("signal")[rows] * np.where(wild[day[rows]], -1.0, 1.0)
    y = (np.random.default_rng(seed).random(len(rows)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    every = Samples(table, rows, y, np.ones(len(rows)), rows, rows + horizon, np.zeros(len(rows)))
    return every.take(day[rows] < 598), every.take(day[rows] >= 600)


def test_every_name_receives_the_markets_own_filter_of_its_day():
    table, wild = panel()
    train, valid = samples(table, wild)
    done = REGIME.fit(train, valid)
    got = done.predict_proba(table, valid.rows)
    market = np.flatnonzero(table.symbol == table.symbols.index("SPY"))
    by_day = dict(zip(table.time[market].tolist(), done.regime_.predict_proba(table, market), strict=True))
    np.testing.assert_array_equal(got, [by_day[t] for t in table.time[valid.rows].tolist()])
    day = ((table.time[valid.rows] - table.time.min()) // np.timedelta64(1, "D")).astype(int)
    assert ((got[:, 1] > 0.5) == wild[day]).mean() > 0.9
    # a name's own filter would say what its own noise says
    own = done.regime_.predict_proba(table, valid.rows)
    assert ((own[:, 1] > 0.5) == wild[day])[~np.isnan(own[:, 1])].mean() < 0.7


def test_it_is_fitted_on_the_markets_training_days_alone():
    """What markets and names do later, and what names ever do, changes no bit of it."""
    table, wild = panel()
    train, valid = samples(table, wild)
    done = REGIME.fit(train, valid)
    values = table.values.copy()
    market = table.symbol == table.symbols.index("SPY")
    values[~market | (table.time > train.time.max())] *= -3
    other = REGIME.fit(train.on(table.with_values(values)), valid.on(table.with_values(values)))
    assert other.to_json() == done.to_json()
    inside = table.values.copy()
    inside[market & (table.time <= train.time.max())] *= 2
    assert REGIME.fit(train.on(table.with_values(inside)), valid).to_json() != done.to_json()


def test_a_day_without_the_market_is_unknown_and_not_filled():
    table, wild = panel()
    done = REGIME.fit(*samples(table, wild))
    market = np.flatnonzero(table.symbol == table.symbols.index("SPY"))
    kept = np.ones(len(table), dtype=bool)
    kept[market[500]] = False
    segment = table.segment + 10 * (np.arange(len(table)) > market[500])  # the gap ends the market's segment
    holes = FeatureTable(
        *(a[kept] for a in (table.symbol, table.time, segment, table.values)), table.names, table.symbols
    )
    rows = np.flatnonzero(holes.symbol == 1)
    belief = done.predict_proba(holes, rows)
    unknown = np.isnan(belief).any(axis=1)
    assert np.flatnonzero(unknown).tolist() == [*range(LOOKBACK - 1), *range(500, 500 + LOOKBACK)]
    before = done.predict_proba(table, np.flatnonzero(table.symbol == 1))
    np.testing.assert_array_equal(belief[:500], before[:500])


def test_one_row_gives_the_bits_of_a_batch_and_json_is_exact():
    table, wild = panel()
    train, valid = samples(table, wild)
    done = REGIME.fit(train, valid)
    batch = done.predict_proba(table, valid.rows[:30])
    np.testing.assert_array_equal(np.vstack([done.predict_proba(table, valid.rows[[i]]) for i in range(30)]), batch)
    again = regime_from_json(json.loads(json.dumps(done.to_json())))
    np.testing.assert_array_equal(again.predict_proba(table, valid.rows), done.predict_proba(table, valid.rows))
    assert (again.lookback, again.names, again.market_symbol) == (LOOKBACK, ("calm", "wild"), "SPY")
    plain = regime_from_json(json.loads(json.dumps(done.regime_.to_json())))
    assert isinstance(plain, HmmRegime)


def test_a_table_without_the_market_is_refused():
    table, wild = panel()
    train, valid = samples(table, wild)
    with pytest.raises(DataError, match="no bar of 'QQQ' among 7"):
        replace(REGIME, market_symbol="QQQ").fit(train, valid)
    with pytest.raises(TrainingError, match="not fitted"):
        REGIME.predict_proba(table, valid.rows)
