"""A copy per symbol: what it knows, what it does not, and what it says of strangers."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tradsys.core.errors import TrainingError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models.calibrators import Temperature
from tradsys.models.ensembles.compose import Calibrated, Scaled
from tradsys.models.ensembles.nested_copies import in_workdir, seeded
from tradsys.models.ensembles.per_symbol import PerSymbol
from tradsys.models.linear import LogisticRegression
from tradsys.models.transforms import RobustScaler

SIZES = {"AAA": 600, "BBB": 500, "CCC": 60}


def make_table(sizes):
    rng = np.random.default_rng(1)
    symbol = np.repeat(np.arange(len(sizes), dtype=np.int32), list(sizes.values()))
    time = np.concatenate([np.arange(n) for n in sizes.values()]) * np.timedelta64(1, "h") + np.datetime64("2020", "us")
    values = rng.normal(symbol[:, None] * 3, 1 + symbol[:, None], (len(symbol), 2)).astype(np.float32)
    return FeatureTable(symbol, time, symbol, values, ("ret_1", "vol_5"), tuple(sizes))


def make_samples(table, seed=2):
    """Outcomes whose dependence on the first column has another sign in each symbol."""
    rng = np.random.default_rng(seed)
    rows = np.arange(len(table))
    own = table.values[:, 0] - 3 * table.symbol
    y = (np.where(table.symbol == 1, -own, own) + rng.normal(size=len(rows)) > 0).astype(np.int64)
    weight = rng.uniform(0.5, 1.5, len(rows))
    return Samples(table, rows, y, weight, rows, rows + 1, np.zeros(len(rows)))


@pytest.fixture
def parts():
    samples = make_samples(make_table(SIZES))
    late = np.zeros(len(samples), dtype=bool)
    for code in range(3):
        late[np.flatnonzero(samples.table.symbol == code)[-40:]] = True
    return samples.take(~late), samples.take(late)


def single(least=100):
    return PerSymbol(LogisticRegression(C=1.0), RobustScaler(clip=5.0, quantile=0.25), Temperature(), least)


def test_each_symbol_is_answered_by_a_model_of_its_own_samples(parts):
    train, valid = parts
    done = single().fit(train, valid)
    shuffled = np.random.default_rng(3).permutation(valid.rows)
    reported = done.predict_proba(valid.table, shuffled)
    for code in (0, 1):
        own, held = (part.take(valid.table.symbol[part.rows] == code) for part in (train, valid))
        alone = Calibrated(Scaled(RobustScaler(clip=5.0, quantile=0.25), LogisticRegression(C=1.0)), Temperature())
        mine = valid.table.symbol[shuffled] == code
        expected = alone.fit(own, held).predict_proba(valid.table, shuffled[mine])
        np.testing.assert_array_equal(reported[mine], expected)


def test_what_happens_to_one_symbol_is_not_seen_by_another(parts):
    train, valid = parts
    turned = [replace(p, y=np.where(p.table.symbol[p.rows] == 1, 1 - p.y, p.y)) for p in parts]
    rows = np.arange(len(train.table))
    before, after = (single().fit(*p).predict_proba(train.table, rows) for p in ((train, valid), turned))
    code = train.table.symbol
    np.testing.assert_array_equal(before[code == 0], after[code == 0])
    assert (before[code == 1] != after[code == 1]).all()


def test_a_symbol_without_history_gets_the_base_rate_and_a_warning(parts, caplog):
    train, valid = parts
    done = single(least=100).fit(train, valid)
    assert set(done.members_) == {"AAA", "BBB"}
    assert "CCC; they get the base rate" in caplog.text
    rate = np.bincount(train.y, weights=train.weight) / train.weight.sum()
    rows = np.flatnonzero(train.table.symbol == 2)
    np.testing.assert_allclose(done.predict_proba(train.table, rows), np.tile(rate, (len(rows), 1)))
    # a symbol that was not there in training is a stranger too, and codes of another table are read by name
    other = replace(train.table, symbols=("AAA", "ZZZ", "BBB"))
    reported = done.predict_proba(other, np.arange(len(other)))
    np.testing.assert_allclose(reported[other.symbol == 1], np.tile(rate, (500, 1)))
    row = np.flatnonzero(other.symbol == 2)[:1]
    np.testing.assert_array_equal(reported[row], done.members_["BBB"].predict_proba(other, row))


def test_a_symbol_of_one_class_is_not_fitted(parts):
    train, valid = parts
    flat = replace(valid, y=np.where(valid.table.symbol[valid.rows] == 0, 1, valid.y))
    assert set(single().fit(train, flat).members_) == {"BBB"}


def test_no_symbol_with_enough_is_an_error(parts):
    with pytest.raises(TrainingError, match=r"none of \['AAA', 'BBB', 'CCC'\] has 1000 training samples"):
        single(least=1000).fit(*parts)
    with pytest.raises(TrainingError, match="least=1"):
        single(least=1)


@dataclass(frozen=True, eq=False)
class Noted:
    """Writes its seed where it was configured to."""

    seed: int = 0
    workdir: Path | None = None
    lookback: int = 1
    reads_raw: bool = field(default=True, init=False)

    def fit(self, train, valid):
        self.workdir.mkdir(parents=True)
        (self.workdir / "seed").write_text(str(self.seed))
        return self

    def predict_proba(self, table, rows):
        return np.full((len(rows), 2), 0.5)


def test_copies_share_the_seed_and_no_folder(parts, tmp_path):
    model = in_workdir(seeded(PerSymbol(Noted(), least=100), 5), tmp_path)
    model.fit(*parts)
    found = {path.parent.name: path.read_text() for path in tmp_path.rglob("seed")}
    assert found == {"AAA": "5", "BBB": "5"}
