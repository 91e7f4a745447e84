from dataclasses import replace

import numpy as np
import pytest

from tests.unit.models.test_sequence import make_samples
from tradsys.core.errors import DataError
from tradsys.samples.held_out_symbols import HeldOutSymbols, TestedSymbols
from tradsys.samples.splits import WalkForward


@pytest.fixture(scope="module")
def samples():
    """Two symbols that take turns over the same moments."""
    one = make_samples(400)
    table = replace(one.table, symbol=(np.arange(400) >= 200).astype(np.int32), symbols=("AAA", "BBB"))
    table = replace(table, time=np.concatenate([one.table.time[:200]] * 2), segment=table.symbol)
    return replace(one, table=table).take(one.rows % 200 >= 10)


def test_no_training_sample_is_of_a_test_symbol_and_time_stays_split(samples):
    splitter = WalkForward(n_folds=2, embargo_bars=1)
    folds = list(HeldOutSymbols(splitter, ["BBB"]).split(samples))
    assert len(folds) == 2
    for fold, plain in zip(folds, splitter.split(samples), strict=True):
        symbol_of = {
            name: samples.table.symbol[samples.rows[getattr(fold, name)]] for name in ("train", "valid", "test")
        }
        assert {name: set(s.tolist()) for name, s in symbol_of.items()} == {"train": {0}, "valid": {0}, "test": {1}}
        assert samples.time[fold.train].max() < samples.time[fold.test].min()
        assert set(fold.test) < set(plain.test)
        assert set(fold.train) < set(plain.train)


@pytest.mark.parametrize("symbols", [[], ["AAA", "BBB"], ["CCC"]])
def test_symbols_that_leave_nothing_are_refused(samples, symbols):
    with pytest.raises(DataError, match=r"split: held-out symbols .* \['AAA', 'BBB'\]"):
        list(HeldOutSymbols(WalkForward(n_folds=2), symbols).split(samples))


def test_names_that_are_only_learnt_from_are_in_no_validation_and_no_test(samples):
    splitter = WalkForward(n_folds=2, embargo_bars=1)
    for fold, plain in zip(TestedSymbols(splitter, ["BBB"]).split(samples), splitter.split(samples), strict=True):
        assert np.array_equal(fold.train, plain.train)
        for part in ("valid", "test"):
            whole, kept = getattr(plain, part), getattr(fold, part)
            assert np.array_equal(kept, whole[samples.table.symbol[samples.rows[whole]] == 1])
            assert 0 < len(kept) < len(whole)
    for fold, plain in zip(
        TestedSymbols(splitter, ["BBB", "AAA"]).split(samples), splitter.split(samples), strict=True
    ):
        assert all(np.array_equal(getattr(fold, part), getattr(plain, part)) for part in ("train", "valid", "test"))


def test_a_tested_symbol_that_is_not_there_is_refused(samples):
    with pytest.raises(DataError, match=r"tested symbols \['CCC'\] are none of \['AAA', 'BBB'\].*set study.tested"):
        list(TestedSymbols(WalkForward(n_folds=2), ["AAA", "CCC"]).split(samples))
