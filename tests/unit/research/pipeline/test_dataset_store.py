"""Every command makes the same samples of one configuration; stored datasets are read as written or not at all."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tradsys.config.compose import as_dict, build, compose
from tradsys.core.errors import DataError
from tradsys.core.tables import Fold
from tradsys.research.comparisons.aligned_datasets import aligned_datasets
from tradsys.research.panel.walk_forward import prepared_in_turn
from tradsys.research.pipeline.dataset import Dataset, build_dataset, label_rows, load_bars, prepare
from tradsys.research.pipeline.dataset_store import ABOUT, OF_SAMPLES, dataset_digest, load_dataset, save_dataset
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.sweeps import inner_folds
from tradsys.research.sweeps.inner_folds import InnerFolds, dataset_key, shared_dataset
from tradsys.samples.splits import WalkForward

INNER = WalkForward(n_folds=2)
OVERRIDES = [
    "data.n_bars=2200",
    "data.source.symbols=[SYN0]",
    "model=transformer",
    "model.lookback=64",
    "regime.lookback=48",
]


def composed(*overrides):
    config = compose("train", [*OVERRIDES, *overrides])
    return Experiment.of(build(config)), as_dict(config)


@pytest.fixture(scope="module")
def experiment():
    return composed()[0]


@pytest.fixture(scope="module")
def bars(experiment):
    return load_bars(experiment)


@pytest.fixture(scope="module")
def dataset(experiment, bars):
    return build_dataset(experiment, bars)


def assert_same_samples(one, other):
    for name in OF_SAMPLES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.table.names == other.table.names
    np.testing.assert_array_equal(one.table.values, other.table.values)


def test_every_command_makes_the_same_samples_of_one_config(experiment, bars, dataset, tmp_path):
    config = as_dict(compose("train", OVERRIDES))
    assert experiment.lookback == experiment.model.lookback
    run, daily = prepare(experiment, bars), dict(prepared_in_turn({"h": experiment}, bars))["h"]
    compared = aligned_datasets({"a": (experiment, config)}, experiment.split)["a"].dataset
    audited = label_rows(experiment, bars, features=dataset.features).samples()
    for samples in (run.samples, daily.samples, compared.samples, audited):
        assert_same_samples(samples, dataset.samples)
    for fold in (run.fold, daily.fold, compared.folds[0]):
        for part in ("train", "valid", "test"):
            np.testing.assert_array_equal(getattr(fold, part), getattr(dataset.folds[0], part))
    swept = shared_dataset(experiment, config, INNER, tmp_path, experiment.lookback)
    inner = build_dataset(experiment, bars, InnerFolds(experiment.split, INNER))
    assert_same_samples(swept.samples, inner.samples)
    assert dataset_digest(swept) == dataset_digest(inner)


def test_every_command_weights_alike(bars):
    experiment, config = composed("weighting=none")
    assert (build_dataset(experiment, bars).samples.weight == 1).all()
    assert (prepare(experiment, bars).samples.weight == 1).all()
    assert dataset_key(config, INNER, 1) != dataset_key(config | {"weighting": "uniqueness"}, INNER, 1)


def test_a_sweep_builds_its_samples_anew_after_the_code_changed(experiment, bars, monkeypatch, tmp_path):
    config = as_dict(compose("train", OVERRIDES))
    monkeypatch.setattr(inner_folds, "load_bars", lambda _: bars)
    made = []
    real = inner_folds.build_dataset
    monkeypatch.setattr(inner_folds, "build_dataset", lambda *a, **k: made.append(1) or real(*a, **k))
    for code, n_made in (("a", 1), ("a", 1), ("b", 2), ("a", 2)):
        monkeypatch.setattr(inner_folds, "code_digest", lambda code=code: code)
        shared_dataset(experiment, config, INNER, tmp_path, experiment.lookback)
        assert len(made) == n_made


def test_a_symbol_without_samples_is_refused_by_every_command(experiment, bars, monkeypatch, tmp_path):
    young = bars.vstack(bars.head(30).with_columns(symbol=pl.lit("YOUNG"), segment=pl.lit(9, dtype=pl.UInt32)))
    monkeypatch.setattr("tradsys.research.sweeps.inner_folds.load_bars", lambda _: young)
    monkeypatch.setattr("tradsys.research.comparisons.aligned_datasets.load_bars", lambda _: young)
    config = as_dict(compose("train", OVERRIDES))
    paths = (
        lambda: prepare(experiment, young),
        lambda: build_dataset(experiment, young),
        lambda: shared_dataset(experiment, config, INNER, tmp_path, 64),
        lambda: aligned_datasets({"a": (experiment, config)}, experiment.split),
    )
    for path in paths:
        with pytest.raises(DataError, match=r"YOUNG \(30 bars\) gave no sample"):
            path()
    assert not list(tmp_path.glob("*/*"))


# ------------------------------------------------------------------ on disk


def test_a_dataset_comes_back_from_disk_as_it_was(dataset, tmp_path):
    save_dataset(dataset, tmp_path / "dataset")
    back = load_dataset(tmp_path / "dataset")
    assert dataset_digest(back) == dataset_digest(dataset)
    assert back.data_digest == dataset.data_digest
    assert back.features.schema_hash() == dataset.features.schema_hash()
    kept = (tmp_path / "dataset" / "table_values.npy").read_bytes()
    back.samples.table.values[:] = 0  # a worker's own pages
    assert (tmp_path / "dataset" / "table_values.npy").read_bytes() == kept


def test_a_dataset_of_an_earlier_version_is_written_again_with_what_the_paths_did(dataset, tmp_path):
    old = replace(dataset, samples=replace(dataset.samples, mean_met=None))
    save_dataset(old, tmp_path / "one")
    assert load_dataset(tmp_path / "one").samples.mean_met is None
    load_dataset.cache_clear()
    save_dataset(dataset, tmp_path / "one")
    np.testing.assert_array_equal(load_dataset(tmp_path / "one").samples.mean_met, dataset.samples.mean_met)
    written = (tmp_path / "one" / ABOUT).stat().st_mtime_ns
    save_dataset(dataset, tmp_path / "one")
    assert (tmp_path / "one" / ABOUT).stat().st_mtime_ns == written


def test_a_datasets_digest_knows_values_labels_and_folds(dataset):
    samples, digest = dataset.samples, dataset_digest(dataset)
    values = samples.table.values.copy()
    values[0, 0] = 7
    fold = dataset.folds[0]
    others = [
        replace(dataset, samples=replace(samples, table=replace(samples.table, values=values))),
        replace(dataset, samples=replace(samples, y=1 - samples.y)),
        replace(dataset, folds=(Fold(fold.train[1:], fold.valid, fold.test), *dataset.folds[1:])),
    ]
    assert len({digest, *map(dataset_digest, others)}) == 4


def changed_value(folder):
    values = np.load(folder / "y.npy")
    np.save(folder / "y.npy", 1 - values)


def objects_in_it(folder):
    np.save(folder / "y.npy", np.array([{}], dtype=object), allow_pickle=True)


def rewrite(change):
    def damage(folder):
        about = json.loads((folder / ABOUT).read_text())
        (folder / ABOUT).write_text(json.dumps(change(about)))

    return damage


DAMAGES = {
    "another value": changed_value,
    "a pickle": objects_in_it,
    "truncated": lambda f: (f / "table_values.npy").write_bytes((f / "table_values.npy").read_bytes()[:1000]),
    "a missing array": lambda f: (f / "end.npy").unlink(),
    "empty": lambda f: (f / "rows.npy").write_bytes(b""),
    "no record": lambda f: (f / ABOUT).unlink(),
    "a record that is no JSON": lambda f: (f / ABOUT).write_bytes(b"\xff{"),
    "a record of another shape": rewrite(lambda about: [about]),
    "fewer folds": rewrite(lambda about: about | {"n_folds": 0}),
    "other symbols": rewrite(lambda about: about | {"symbols": ["XXX"]}),
    "a count that is a word": rewrite(lambda about: about | {"n_folds": "two"}),
    "no digest": rewrite(lambda about: {k: v for k, v in about.items() if k != "digest"}),
}


@pytest.fixture(scope="module")
def small(dataset):
    return Dataset(dataset.data_digest, dataset.features, dataset.samples, dataset.folds[:1])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_dataset_is_refused_in_one_line_with_the_folder(small, damage, tmp_path):
    save_dataset(small, tmp_path / "dataset")
    damage(tmp_path / "dataset")
    with pytest.raises(DataError, match=r"delete the folder and run the same command again") as error:
        load_dataset(tmp_path / "dataset")
    assert str(tmp_path / "dataset") in str(error.value)
    assert "\n" not in str(error.value)
