import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from tradsys.core.errors import TradsysError
from tradsys.labels.triple_barrier import TripleBarrier
from tradsys.market.synthetic import SyntheticMarket

LONG = 60_000
N_SYMBOLS = 3


@pytest.fixture(scope="module")
def null_market():
    return SyntheticMarket(n_bars=LONG, edge=0.0, seed=11)


@pytest.fixture(scope="module")
def edge_market():
    return SyntheticMarket(n_bars=LONG, edge=0.3, seed=11)


def plain_features(bars):
    """What any trader would compute from past bars: returns over several horizons, z-scores, volatility."""
    close, step = pl.col("close"), pl.col("close").log().diff()
    vol = step.rolling_std(96)
    columns = {f"ret_{k}": (close.log() - close.log().shift(k)) / (vol * k**0.5) for k in (1, 6, 24, 48, 96)}
    columns |= {f"z_{k}": (close - close.rolling_mean(k)) / close.rolling_std(k) for k in (12, 48)}
    columns |= {
        "vol": vol.log(),
        "squeeze": (step.rolling_std(12) / vol).log(),
        "volume": pl.col("volume").log(),
    }
    return bars.select(expr.over("symbol").alias(name) for name, expr in columns.items())


def conditions(market):
    """Masks over rows, each known at the row's close: fifths of every feature, and the hidden states."""
    features, truth = plain_features(market.bars()), market.regimes()
    masks = {}
    for name in features.columns:
        x = features[name].to_numpy()
        edges = np.nanquantile(x, [0, 0.2, 0.4, 0.6, 0.8, 1])
        for k in range(5):
            masks[f"{name} fifth {k}"] = (x >= edges[k]) & (x <= edges[k + 1])
    for name in ("regime", "phase"):
        for state in truth[name].unique():
            masks[state] = (truth[name] == state).to_numpy()
    return masks


def t_values(market, horizon):
    """Mean simple return over `horizon` bars in standard errors, by condition; rows apart, so no overlap.

    Returns are divided by the sigma that is known beforehand; the symbols of one time enter as one mean.
    """
    close = market.bars()["close"].to_numpy().reshape(N_SYMBOLS, -1)
    sigma = market.regimes()["sigma"].to_numpy().reshape(N_SYMBOLS, -1)
    rows = np.arange(200, LONG - horizon, horizon)
    scaled = (close[:, rows + horizon] / close[:, rows] - 1) / sigma[:, rows]
    out = {}
    for name, mask in conditions(market).items():
        picked = np.where(mask.reshape(N_SYMBOLS, -1)[:, rows], scaled, 0.0).sum(axis=0)
        out[name] = picked.mean() / (picked.std() / np.sqrt(len(rows)))
    return out


def test_bars_keep_the_package_schema():
    market = SyntheticMarket(symbols=("B", "A"), n_bars=500, bar_minutes=15)
    bars = market.bars()
    assert dict(bars.schema) == {
        "symbol": pl.String,
        "time": pl.Datetime("us", "UTC"),
        **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
    }
    assert bars.equals(bars.sort("symbol", "time"))
    assert bars.height == 1000
    assert not bars.select("symbol", "time").is_duplicated().any()
    steps = bars.select(pl.col("time").diff().over("symbol")).to_series().drop_nulls()
    assert steps.unique().to_list() == [timedelta(minutes=15)]
    ordered = (
        (pl.col("low") <= pl.min_horizontal("open", "close"))
        & (pl.col("high") >= pl.max_horizontal("open", "close"))
        & (pl.col("low") > 0)
        & (pl.col("volume") > 0)
    )
    assert bars.select(ordered.all()).item()
    assert market.regimes().select("symbol", "time").equals(bars.select("symbol", "time"))


def test_same_seed_same_bars():
    assert SyntheticMarket(n_bars=300).bars().equals(SyntheticMarket(n_bars=300).bars())
    assert not SyntheticMarket(n_bars=300).bars().equals(SyntheticMarket(n_bars=300, seed=8).bars())


def test_a_symbol_does_not_depend_on_how_many_follow():
    many, one = SyntheticMarket(n_bars=300).bars(), SyntheticMarket(symbols=("SYN0",), n_bars=300).bars()
    assert many.filter(pl.col("symbol") == "SYN0").equals(one)


def test_edge_changes_no_draw():
    hidden = ["regime", "phase", "sigma"]
    a, b = SyntheticMarket(n_bars=900, edge=0.0), SyntheticMarket(n_bars=900, edge=0.5)
    assert a.regimes().select(hidden).equals(b.regimes().select(hidden))
    assert (a.regimes()["drift"] == 0).all()
    with_edge, without = b.bars()["close"].to_numpy(), a.bars()["close"].to_numpy()
    planted = (b.regimes()["drift"] * b.regimes()["sigma"]).to_numpy().reshape(N_SYMBOLS, -1).cumsum(axis=1)
    np.testing.assert_allclose(np.log(with_edge / without), planted.ravel(), atol=1e-10)


@pytest.mark.parametrize("horizon", [1, 24])
def test_without_edge_no_condition_on_the_past_moves_the_mean(null_market, horizon):
    t = t_values(null_market, horizon)
    assert len(t) >= 50
    assert max(t.values()) < 3
    assert min(t.values()) > -3


def test_the_same_look_finds_a_planted_edge(edge_market):
    """Else the test above could not fail."""
    t = t_values(edge_market, 1)
    assert t["ret_48 fifth 4"] > 6
    assert t["ret_48 fifth 0"] < -6


def test_price_and_not_log_price_is_the_martingale():
    """At a volatility where convexity, tails and jumps would show: the mean of logs is far below zero."""
    bars = SyntheticMarket(symbols=("SYN0",), n_bars=200_000, edge=0.0, annual_vol=6.0, seed=3).bars()
    log_return = bars["close"].log().diff().drop_nulls().to_numpy()
    simple = np.expm1(log_return)
    assert abs(simple.mean()) < 3 * simple.std() / np.sqrt(len(simple))
    assert log_return.mean() < -6 * log_return.std() / np.sqrt(len(log_return))
    assert log_return.mean() == pytest.approx(-(log_return.std() ** 2) / 2, rel=0.2)


def auc_of_logistic_regression(market, n_train):
    """Fit before, judge after; rows 24 bars apart, so labels overlap little. Returns AUC and its error."""
    features = plain_features(market.bars()).to_numpy()
    labels = TripleBarrier().label(market.bars())
    bar = np.tile(np.arange(market.n_bars), N_SYMBOLS)
    usable = np.isfinite(features).all(axis=1) & (labels.y >= 0)
    train = usable & (bar < n_train - 24)
    test = usable & (bar >= n_train) & (bar % 24 == 0)
    scaler = StandardScaler().fit(features[train])
    model = LogisticRegression(C=0.01).fit(scaler.transform(features[train]), labels.y[train])
    auc = roc_auc_score(labels.y[test], model.predict_proba(scaler.transform(features[test]))[:, 1])
    # Hanley & McNeil 1982 at AUC 0.5; the symbols of one time are worth about half as many
    wins = labels.y[test].sum()
    losses = test.sum() - wins
    return auc, np.sqrt((wins + losses + 1) / (12 * wins * losses) * 2)


def test_without_edge_a_model_learns_nothing(null_market):
    auc, error = auc_of_logistic_regression(null_market, n_train=30_000)
    assert error < 0.014
    assert abs(auc - 0.5) < 2.5 * error


def test_with_the_default_edge_a_plain_model_learns(edge_market):
    auc, _ = auc_of_logistic_regression(edge_market, n_train=30_000)
    assert 0.55 < auc < 0.66


def test_without_edge_the_label_pays_nobody(null_market):
    """Fills at the barriers are fair: before costs an entry gains nothing, long or short."""
    bars = null_market.bars()
    for side in (1, -1):
        labels = TripleBarrier(side=side).label(bars)
        gain = side * np.expm1(side * labels.ret).reshape(N_SYMBOLS, -1)[:, 100::24].mean(axis=0)
        gain = gain[np.isfinite(gain)]
        assert abs(gain.mean()) < 3 * gain.std() / np.sqrt(len(gain))


def test_the_edge_is_what_it_says():
    """The drift of the docstring, by a plain loop over past closes, is the planted one."""
    market = SyntheticMarket(n_bars=2000, edge=0.4, seed=5)
    parts = zip(market.bars().partition_by("symbol"), market.regimes().partition_by("symbol"), strict=True)
    for bars, truth in parts:
        close, sigma = [100.0, *bars["close"].to_list()], truth["sigma"].to_list()
        regime, drift = truth["regime"].to_list(), truth["drift"].to_list()
        m = s = 0.0
        for t in range(2000):
            felt = 0.0 if t == 0 else {"trend": m, "calm": -s, "panic": 0.0}[regime[t - 1]]
            expected = 0.4 * np.sign(felt) * min(max(abs(felt) - 0.5, 0), 1)
            assert drift[t] == pytest.approx(expected, abs=1e-9)
            move = np.log(close[t + 1] / close[t]) / sigma[t]
            m = (1 - 1 / 48) * m + np.sqrt(1 - (1 - 1 / 48) ** 2) * move
            s = (1 - 1 / 12) * s + np.sqrt(1 - (1 - 1 / 12) ** 2) * move
    assert np.abs(market.regimes()["drift"]).max() == pytest.approx(0.4)


def test_what_moves_beyond_the_drift_is_a_martingale(edge_market):
    truth, bars = edge_market.regimes(), edge_market.bars()
    drift, sigma = (truth[name].to_numpy().reshape(N_SYMBOLS, -1)[:, 1:] for name in ("drift", "sigma"))
    growth = np.exp(np.diff(np.log(bars["close"].to_numpy().reshape(N_SYMBOLS, -1)), axis=1))
    rest = (growth * np.exp(-drift * sigma) - 1) / sigma
    for k in range(N_SYMBOLS):
        slope = (rest[k] * drift[k]).mean() / (drift[k] ** 2).mean()
        error = (rest[k] * drift[k]).std() / np.sqrt(LONG) / (drift[k] ** 2).mean()
        assert abs(slope) < 3 * error  # nothing of the drift is left ...
        assert error < 0.1  # ... where all of it would be a slope of one


def by_symbol(market, name):
    return market.bars()[name].to_numpy().reshape(N_SYMBOLS, -1)


def correlation(x, y):
    return np.corrcoef(x, y)[0, 1]


def test_habits_of_a_real_market(null_market):
    step = np.diff(np.log(by_symbol(null_market, "close")), axis=1)
    width = np.log(by_symbol(null_market, "high") / by_symbol(null_market, "low"))
    volume = np.log(by_symbol(null_market, "volume"))
    # the volatility asked for; 3 years of hourly bars still leave some noise
    np.testing.assert_allclose(step.std(axis=1) * np.sqrt(365 * 24), 1.0, rtol=0.1)
    for k in range(N_SYMBOLS):
        standard = (step[k] - step[k].mean()) / step[k].std()
        assert (standard**4).mean() > 8  # fat tails; a normal has 3
        assert correlation(np.abs(step[k])[:-24], np.abs(step[k])[24:]) > 0.1  # volatility clusters
        assert correlation(width[k], volume[k]) > 0.5  # wide bars trade more
    assert all(0.3 < correlation(step[0], step[k]) < 0.8 for k in (1, 2))  # symbols follow the market
    hour = np.arange(LONG) % 24
    assert volume[:, hour == 14].mean() > volume[:, hour == 3].mean() + 0.3  # a day has its shape
    gap = np.abs(np.log(by_symbol(null_market, "open")[:, 1:] / by_symbol(null_market, "close")[:, :-1]))
    assert (gap > 0).all()
    assert (gap > 3 * np.median(width)).sum() >= 3  # some bars open far away


def test_regimes_differ_and_squeezes_end_in_bursts(null_market):
    truth = null_market.regimes()
    mean = dict(truth.group_by("regime").agg(pl.col("sigma").mean()).iter_rows())
    assert mean["calm"] < 0.7 * mean["trend"] < 0.7 * mean["panic"]
    assert truth["regime"].n_unique() == truth["phase"].n_unique() == 3
    share = truth["regime"].value_counts(normalize=True)
    assert share["proportion"].min() > 0.04
    assert truth.group_by("time").agg(pl.col("regime").n_unique())["regime"].max() == 1  # one for all symbols
    phase = truth["phase"].to_numpy().reshape(N_SYMBOLS, -1)
    left = (phase[:, :-1] == "squeeze") & (phase[:, 1:] != "squeeze")
    assert left.sum() > 100
    assert (phase[:, 1:][left] == "burst").all()
    width = (null_market.bars()["high"] / null_market.bars()["low"]).log()
    by_phase = dict(truth.with_columns(width=width).group_by("phase").agg(pl.col("width").median()).iter_rows())
    assert by_phase["squeeze"] < 0.6 * by_phase["normal"] < 0.6 * by_phase["burst"]


def test_daily_bars_scale():
    daily = SyntheticMarket(n_bars=30_000, bar_minutes=1440, edge=0.0, seed=2).bars()
    step = np.diff(np.log(daily["close"].to_numpy().reshape(N_SYMBOLS, -1)), axis=1)
    np.testing.assert_allclose(step.std(axis=1) * np.sqrt(365), 1.0, rtol=0.1)


def test_describes_itself_as_synthetic():
    said = SyntheticMarket(edge=0.3, seed=9).describe()
    assert said["kind"] == "synthetic"
    assert said["synthetic"] is True
    assert (said["edge"], said["seed"]) == (0.3, 9)
    assert "synthetic market with a planted edge of 0.3" in said["note"]
    assert "no edge" in SyntheticMarket(edge=0.0).describe()["note"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbols": ()},
        {"symbols": ("A", "A")},
        {"n_bars": 0},
        {"n_bars": 10**9},
        {"bar_minutes": 0},
        {"edge": -0.1},
        {"edge": float("nan")},
        {"edge": 1.5},
        {"annual_vol": 0.0},
    ],
)
def test_refuses_wrong_fields(wrong):
    with pytest.raises(ValueError, match=rf"synthetic market: {next(iter(wrong))}( of all .*)?="):
        SyntheticMarket(**wrong)


def bend(noise: np.ndarray, block: int) -> float:
    """Returns in sigmas over bars 18-22 of a block less those over its bars 13-17, the slow way."""
    rise = sum(noise[block * 24 + k] for k in range(18, 23))
    fall = sum(noise[block * 24 + k] for k in range(13, 18))
    return (rise - fall) / math.sqrt(10)


def test_the_shape_of_the_block_before_decides_the_drift_of_the_first_eight_bars():
    market = SyntheticMarket(symbols=("A",), n_bars=24 * 40, edge=0, shape=0.5)
    bars, truth = market.bars(), market.regimes()
    before = np.concatenate([[100.0], bars["close"].to_numpy()[:-1]])
    moves = np.log(bars["close"].to_numpy() / before) / truth["sigma"].to_numpy()
    drift = truth["drift"].to_numpy()
    for block in range(1, 40):
        v = bend(moves, block - 1)
        expected = 0.5 * math.copysign(min(max(abs(v) - 0.5, 0.0), 1.0), v)
        np.testing.assert_allclose(drift[block * 24 : block * 24 + 8], expected, atol=1e-9)
        np.testing.assert_array_equal(drift[block * 24 + 8 : (block + 1) * 24], 0)
    assert not drift[:24].any()


def test_a_shape_of_zero_changes_nothing_and_an_edge_adds_to_it():
    plain = SyntheticMarket(n_bars=300, edge=0.3)
    assert plain.bars().equals(SyntheticMarket(n_bars=300, edge=0.3, shape=0.0).bars())
    assert not plain.bars().equals(SyntheticMarket(n_bars=300, edge=0.3, shape=0.2).bars())
    assert SyntheticMarket(edge=0.3, shape=0.2).describe()["note"] == (
        "synthetic market with a planted edge of 0.3 sigma per bar and a planted shape of 0.2 sigma per bar"
    )
    assert SyntheticMarket(edge=0).describe()["note"] == "synthetic market with no edge"
    with pytest.raises(TradsysError, match="shape"):
        SyntheticMarket(shape=1.5)
