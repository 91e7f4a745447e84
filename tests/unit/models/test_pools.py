from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tradsys.core.errors import DataError, TrainingError
from tradsys.core.protocols import Model
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.boosting import LightGbm
from tradsys.models.calibrators import Temperature
from tradsys.models.ensembles.compose import Average, Calibrated, Scaled, SeedAverage
from tradsys.models.ensembles.nested_copies import in_workdir
from tradsys.models.ensembles.out_of_fold import out_of_fold
from tradsys.models.ensembles.pool_weights import pooled
from tradsys.models.ensembles.stacked import RegimeWeighted, Stacked
from tradsys.models.linear import LogisticRegression
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import RobustScaler, with_fitted
from tradsys.samples.splits import PurgedKFold

HORIZON, LOOKBACK = 12, 20


@dataclass(frozen=True, eq=False)
class Noise:
    """An agent that answers noise, the same for the same row. spread: how sure it is of it."""

    spread: float
    lookback: int = 1
    workdir: Path | None = None
    seen_: int | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> "Noise":
        FOLDERS.append(self.workdir)
        return with_fitted(self, {"seen_": len(train)})

    def predict_proba(self, table: FeatureTable, rows: np.ndarray) -> np.ndarray:
        up = 1 / (1 + np.exp(-self.spread * np.random.default_rng(5).normal(size=len(table))))[rows]
        return np.stack([1 - up, up], axis=1)


@dataclass(frozen=True, eq=False)
class Column:
    """An agent that knows one column and takes its logistic at face value; needs no fit."""

    name: str
    bias: float = 0.0
    lookback: int = 1
    seen_: int | None = field(init=False, default=None)

    def fit(self, train: Samples, valid: Samples) -> "Column":
        return with_fitted(self, {"seen_": len(train)})

    def predict_proba(self, table: FeatureTable, rows: np.ndarray) -> np.ndarray:
        up = 1 / (1 + np.exp(-self.bias - table.column(self.name)[rows].astype(np.float64)))
        return np.stack([1 - up, up], axis=1)


FOLDERS: list[Path | None] = []


def market(seed: int = 0, n: int = 3000, edge: float = 1.0) -> tuple[Samples, Samples]:
    """Columns: `calm_signal` tells in calm stretches, `wild_signal` in wild ones, `ret` shows which it is."""
    FOLDERS.clear()
    rng = np.random.default_rng(seed)
    wild = (np.arange(n) // 250) % 2 == 1
    first, second = rng.normal(size=n), rng.normal(size=n)
    ret = rng.normal(size=n) * np.where(wild, 4.0, 1.0)
    score = edge * 1.5 * np.where(wild, second, first)
    y = (rng.uniform(size=n) < 1 / (1 + np.exp(-score))).astype(np.int64)
    values = np.stack([first, second, ret], axis=1).astype(np.float32)
    codes, rows = np.zeros(n, dtype=np.int32), np.arange(n)
    time = np.datetime64("2020-01-01", "us") + rows * np.timedelta64(60, "m")
    table = FeatureTable(codes, time, codes, values, ("calm_signal", "wild_signal", "ret"), ("AAA",))
    at = np.arange(LOOKBACK, n - HORIZON)
    weight = rng.uniform(0.5, 1.5, len(at))
    samples = Samples(table, at, y[at], weight, at - LOOKBACK + 1, at + HORIZON, np.zeros(len(at)))
    cut = int(0.8 * n)
    return samples.take(samples.end < cut), samples.take(samples.start >= cut)


REGIME = HmmRegime(columns=("ret",), n_states=2, names=("calm", "wild"), lookback=LOOKBACK, n_seeds=2, max_iter=30)
GOOD = LogisticRegression(C=1.0)


@pytest.mark.parametrize("spread", [0.8, 8.0], ids=["noise", "confident noise"])
def test_a_useless_agent_ends_with_no_weight_and_is_not_refitted(spread):
    train, valid = market()
    done = Stacked({"useless": Noise(spread), "good": GOOD}, RobustScaler(), embargo_bars=HORIZON).fit(train, valid)
    assert done.skills_["useless"].high < 0 < done.skills_["good"].low
    assert done.weights_["useless"] == 0
    assert done.weights_["good"] > 0.95
    assert sum(done.weights_.values()) == pytest.approx(1, abs=1e-12)
    assert list(done.members_) == ["good"]
    alone = Scaled(RobustScaler(), GOOD).fit(train, valid).predict_proba(valid.table, valid.rows)
    expected = pooled(np.array([done.weights_["good"], done.weights_["base_rate"]]), [alone, done.base_rate_[None, :]])
    np.testing.assert_allclose(done.predict_proba(valid.table, valid.rows), expected, rtol=1e-12)


def test_where_all_are_useless_the_pool_is_the_base_rate_to_the_bit():
    train, valid = market()
    done = Stacked({"a": Noise(0.8), "b": Noise(8.0)}).fit(train, valid)
    assert done.weights_ == {"a": 0.0, "b": 0.0, "base_rate": 1.0}
    assert done.members_ == {}
    rate = np.bincount(train.y, weights=train.weight) / train.weight.sum()
    got = done.predict_proba(valid.table, valid.rows)
    np.testing.assert_array_equal(got, np.tile(done.base_rate_, (len(valid), 1)))
    np.testing.assert_allclose(got[0], rate, rtol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_without_an_edge_fitted_members_get_little_and_the_pool_stays_near_the_base_rate(seed):
    train, valid = market(seed, edge=0.0)
    trees = LightGbm(n_estimators=60, early_stopping_rounds=0, n_threads=1)
    done = Stacked({"line": GOOD, "trees": trees}, RobustScaler()).fit(train, valid)
    assert all(done.weights_[name] == 0 for name, one in done.skills_.items() if one.high < 0)
    assert not any(one.low > 0 for one in done.skills_.values())
    reported = [m.predict_proba(valid.table, valid.rows) for m in (done, trees.fit(train, valid))]
    away, alone = (np.abs(p - done.base_rate_).std() for p in reported)
    assert away < 0.02
    assert away < alone / 5
    assert isinstance(done, Model)


def test_weights_come_from_rows_that_no_copy_saw():
    train, valid = market()
    greedy = LightGbm(
        n_estimators=150, min_child_samples=2, num_leaves=63, max_depth=9, early_stopping_rounds=0, n_threads=1
    )
    rng = np.random.default_rng(0)
    shuffled = replace(train, y=rng.permutation(train.y))
    done = Stacked({"greedy": greedy, "line": GOOD}).fit(shuffled, valid)
    assert done.weights_["greedy"] == 0
    inside = greedy.fit(shuffled, valid).predict_proba(train.table, train.rows)
    assert (inside.argmax(axis=1) == shuffled.y).mean() > 0.85  # in sample it looks like the best of all


def test_skills_are_of_the_out_of_fold_probabilities():
    train, valid = market()
    done = Stacked({"line": GOOD, "noise": Noise(1.0)}, n_folds=3, embargo_bars=2).fit(train, valid)
    held = out_of_fold(GOOD, train, PurgedKFold(3, 2), valid).proba_NC
    given = -np.log(held[np.arange(len(train)), train.y])
    rate = np.empty(len(train))
    for fold in PurgedKFold(3, 2).split(train):
        counts = np.bincount(train.y[fold.train], weights=train.weight[fold.train])
        rate[fold.test] = -np.log(counts / counts.sum())[train.y[fold.test]]
    expected = 1 - (train.weight * given).sum() / (train.weight * rate).sum()
    assert done.skills_["line"].value == pytest.approx(expected, rel=1e-12)
    assert done.skills_["line"].n_batches == 30


def test_a_calibrator_lets_a_skewed_member_earn_its_weight():
    train, valid = market()
    skewed = {"skewed": Column("calm_signal", bias=2.5), "noise": Noise(1.0)}  # ranks well, as class weights leave it
    raw = Stacked(skewed).fit(train, valid)
    heard = Stacked(skewed, calibrator=Temperature()).fit(train, valid)
    assert raw.skills_["skewed"].high < 0 < heard.skills_["skewed"].low
    assert raw.weights_["skewed"] == 0
    assert heard.weights_["skewed"] > 0.9
    assert isinstance(heard.members_["skewed"], Calibrated)


def test_below_the_floor_is_nothing():
    train, valid = market()
    members = {"calm": Column("calm_signal"), "wild": Column("wild_signal")}
    free = Stacked(members, floor=0.0).fit(train, valid)
    assert 0.2 < free.weights_["wild"] < free.weights_["calm"]
    cut = Stacked(members, floor=0.33).fit(train, valid)
    lost = [name for name, w in free.weights_.items() if w < 0.33]
    assert lost
    assert all(cut.weights_[name] == 0 for name in lost)
    rest = sum(w for name, w in free.weights_.items() if name not in lost)
    for name in set(free.weights_) - set(lost):
        assert cut.weights_[name] == pytest.approx(free.weights_[name] / rest, rel=1e-12)


def test_each_regime_finds_its_own_weights_and_beats_the_common_pool():
    train, valid = market(n=6000)
    members = {"calm": Column("calm_signal"), "wild": Column("wild_signal")}
    done = RegimeWeighted(members, regime=REGIME, shrinkage=20.0).fit(train, valid)
    (calm, _, _), (_, wild, _) = done.state_weights_
    assert min(calm, wild) > 0.6
    assert max(done.state_weights_[1][0], done.state_weights_[0][1]) < 0.3
    assert done.lookback == LOOKBACK
    common = Stacked(members).fit(train, valid)
    losses = [
        -np.log(m.predict_proba(valid.table, valid.rows)[np.arange(len(valid)), valid.y]).mean() for m in (done, common)
    ]
    assert losses[0] < losses[1] - 0.01
    belief = done.regime_.predict_proba(train.table, train.rows)
    # labels of 12 bars decided every bar: about one independent sample in twelve
    assert done.n_effective_.sum() == pytest.approx(len(train) / HORIZON, rel=0.02)
    assert done.n_effective_[1] / done.n_effective_.sum() == pytest.approx(belief[:, 1].mean(), abs=0.01)


def test_infinite_shrinkage_is_the_common_pool_and_none_is_each_states_own():
    train, valid = market()
    members = {"calm": Column("calm_signal"), "wild": Column("wild_signal"), "noise": Noise(2.0)}
    common = Stacked(members).fit(train, valid)
    same, own = (RegimeWeighted(members, regime=REGIME, shrinkage=k).fit(train, valid) for k in (np.inf, 0.0))
    np.testing.assert_allclose(same.state_weights_, [list(common.weights_.values())] * 2, rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        same.predict_proba(valid.table, valid.rows), common.predict_proba(valid.table, valid.rows), rtol=1e-12
    )
    assert same.weights_ == common.weights_ == own.weights_
    half = RegimeWeighted(members, regime=REGIME, shrinkage=100.0, floor=0.0).fit(train, valid)
    bare = RegimeWeighted(members, regime=REGIME, shrinkage=0.0, floor=0.0).fit(train, valid)
    for s, n in enumerate(half.n_effective_):
        vector = (n * bare.state_weights_[s] + 100 * np.array([*half.weights_.values()])) / (n + 100)
        np.testing.assert_allclose(half.state_weights_[s], vector, rtol=1e-12)
    assert (half.state_weights_[:, 2] == 0).all()  # gated in every state


def test_a_certain_belief_takes_that_states_vector(monkeypatch):
    train, valid = market()
    members = {"calm": Column("calm_signal"), "wild": Column("wild_signal")}
    done = RegimeWeighted(members, regime=REGIME, shrinkage=20.0).fit(train, valid)
    names, weights_SK = done.earning()
    each = [*(m.predict_proba(valid.table, valid.rows) for m in done.members_.values()), done.base_rate_[None, :]]
    assert names == ("calm", "wild", "base_rate")
    for s in range(2):
        certain = np.tile(np.eye(2)[s], (len(valid), 1))
        monkeypatch.setattr(HmmRegime, "predict_proba", lambda self, table, rows, c=certain: c)
        got = done.predict_proba(valid.table, valid.rows)
        np.testing.assert_allclose(got, pooled(weights_SK[s], each), rtol=1e-14)
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)


def test_a_row_alone_answers_as_in_a_batch_and_the_scaler_never_reaches_the_regime():
    train, valid = market()
    done = RegimeWeighted({"line": GOOD, "noise": Noise(1.0)}, RobustScaler(clip=1.0), regime=REGIME, shrinkage=50.0)
    done = done.fit(train, valid)
    whole = done.predict_proba(valid.table, valid.rows)
    for k in (0, 7, len(valid) - 1):
        np.testing.assert_array_equal(done.predict_proba(valid.table, valid.rows[k : k + 1])[0], whole[k])
    alone = REGIME.fit(train, valid)
    np.testing.assert_array_equal(done.regime_.means_, alone.means_)
    assert isinstance(done.members_["line"], Scaled)


def test_every_copy_writes_to_its_own_folder(tmp_path):
    train, valid = market()
    members = {"noise": Noise(0.0), "good": GOOD}
    in_workdir(Stacked(members, n_folds=2), tmp_path).fit(train, valid)
    assert FOLDERS[:2] == [tmp_path / "out_of_fold" / "noise" / f"fold_{k}" for k in range(2)]
    assert set(FOLDERS[2:]) <= {tmp_path / "noise"}


def test_pools_nest():
    train, valid = market()
    inner = SeedAverage(LightGbm(n_estimators=15, n_threads=1), 2)
    done = Stacked({"trees": inner, "mean": Average({"line": GOOD, "calm": Column("calm_signal")})}).fit(train, valid)
    assert np.isfinite(done.predict_proba(valid.table, valid.rows)).all()
    assert set(done.members_) <= {"trees", "mean"}
    assert done.weights_["mean"] + done.weights_["trees"] > 0.9


def test_what_cannot_be_pooled_is_refused_in_words():
    train, valid = market()
    with pytest.raises(TrainingError, match=r"members \['one'\]; an ensemble has at least two"):
        Stacked({"one": GOOD})
    with pytest.raises(TrainingError, match="'base_rate', which every pool holds already"):
        Stacked({"base_rate": GOOD, "a": GOOD})
    with pytest.raises(TrainingError, match=r"floor=0\.4"):
        Stacked({"a": GOOD, "b": GOOD}, floor=0.4)
    with pytest.raises(TrainingError, match="shrinkage=-1"):
        RegimeWeighted({"a": GOOD, "b": GOOD}, regime=REGIME, shrinkage=-1)
    two = {"noise": Noise(1.0), "line": GOOD}
    with pytest.raises(TrainingError, match=r"ensemble member 'line': logistic: .*absent"):
        Average({"line": GOOD, "noise": Noise(1.0)}).fit(replace(train, y=0 * train.y), valid)
    broken = train.table.values.copy()
    broken[500, 1] = np.nan
    with pytest.raises(DataError, match="ensemble member 'line': logistic: NaN"):
        Stacked(two).fit(train.on(train.table.with_values(broken)), valid)
    short = train.take(np.arange(30))
    with pytest.raises(TrainingError, match="one batch of time"):
        Stacked({"a": Noise(1.0), "b": Noise(2.0)}, n_folds=2).fit(_unpurged(short), valid)
    with pytest.raises(TrainingError, match="not fitted"):
        Stacked(two).predict_proba(train.table, train.rows)


def _unpurged(samples: Samples) -> Samples:
    """Spans so short that folds survive, but one label that lasts nearly as long as all of them."""
    end = samples.rows + 1
    end[0] = samples.rows[0] + 16
    return replace(samples, start=samples.rows, end=end)
