"""A dataset on disk: arrays that worker processes map, and the digest of their content."""

import hashlib
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tradsys.core.errors import DamagedError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json
from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import Array, FeatureTable, Fold, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.research.pipeline.dataset import PARTS, Dataset

ABOUT = "dataset.json"
COLUMNS = ("symbol", "time", "segment")
OF_SAMPLES = ("rows", "y", "weight", "start", "end", "ret")
OF_PATHS = ("realised_range", "mean_met")


def dataset_digest(dataset: Dataset) -> str:
    """Digest of all numbers of a dataset that a fit or its evaluation reads.

    Without what the paths did, which follows from bars and label ends: it has digests of its own in the stored form.
    """
    table, samples = dataset.samples.table, dataset.samples
    arrays = [getattr(table, name) for name in COLUMNS] + [getattr(samples, name) for name in OF_SAMPLES]
    folds = [getattr(fold, part) for fold in dataset.folds for part in PARTS]
    return digest_json([table.names, table.symbols, len(dataset.folds), digest_arrays(table.values, *arrays, *folds)])


def digest_arrays(*arrays: Array) -> str:
    """Hex SHA-256 of shapes, types and values."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Writes the dataset atomically into `folder`.

    Does nothing where it lies there already. A folder that an earlier version wrote without what the paths did is
    written again.
    """
    table, samples = dataset.samples.table, dataset.samples
    if folder.is_dir():
        paths = [folder / f"{name}.npy" for name in OF_PATHS if getattr(samples, name) is not None]
        if not (folder / ABOUT).is_file() or all(path.is_file() for path in paths):
            return
        shutil.rmtree(folder)
    arrays = {f"table_{name}": getattr(table, name) for name in (*COLUMNS, "values")}
    arrays |= {name: getattr(samples, name) for name in OF_SAMPLES}
    arrays |= {name: path for name in OF_PATHS if (path := getattr(samples, name)) is not None}
    arrays |= {f"fold_{k}_{part}": getattr(fold, part) for k, fold in enumerate(dataset.folds) for part in PARTS}
    with written_atomically(folder) as draft:
        draft.mkdir()
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        write_json(
            draft / ABOUT,
            {
                "names": table.names,
                "symbols": table.symbols,
                "n_folds": len(dataset.folds),
                "data_digest": dataset.data_digest,
                "features": dataset.features.to_json(),
                "digest": dataset_digest(dataset),
                **_path_digests(samples),
            },
        )


@lru_cache(maxsize=2)
def load_dataset(folder: Path) -> Dataset:
    """The dataset that `save_dataset` wrote.

    Its arrays are pages of the files, shared by all processes that map them. Copy on write: a model that scales in
    place changes pages of its own process, never the file. Raises DataError where a file is missing, damaged or not the
    one that was written.
    """
    try:
        about = read_json(folder / ABOUT, "delete the folder and run the same command again", DamagedError)
        dataset = _mapped(folder, about)
        digest, found = about["digest"], dataset_digest(dataset)
        for name, path in _path_digests(dataset.samples).items():
            if path != about.get(name):
                raise _damaged(folder, f"its {name} has the digest {path}, {ABOUT} records {about.get(name)}")
    except TradsysError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(folder, " ".join(str(error).split()) or type(error).__name__) from error
    if found != digest:
        raise _damaged(folder, f"its arrays have the digest {found[:12]}, {ABOUT} records {str(digest)[:12]}")
    return dataset


def _mapped(folder: Path, about: Json) -> Dataset:
    def mapped(name: str) -> Array:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))

    table = FeatureTable(
        **{name: mapped(f"table_{name}") for name in (*COLUMNS, "values")},
        names=tuple(about["names"]),
        symbols=tuple(about["symbols"]),
    )
    names = (*OF_SAMPLES, *(name for name in OF_PATHS if about.get(name)))
    samples = Samples(table=table, **{name: mapped(name) for name in names})
    folds = tuple(Fold(**{part: mapped(f"fold_{k}_{part}") for part in PARTS}) for k in range(about["n_folds"]))
    return Dataset(about["data_digest"], FeatureSet.from_json(about["features"]), samples, folds)


def _path_digests(samples: Samples) -> dict[str, str | None]:
    paths = {name: getattr(samples, name) for name in OF_PATHS}
    return {name: None if path is None else digest_arrays(path) for name, path in paths.items()}


def _damaged(folder: Path, what: str) -> DamagedError:
    return DamagedError(
        f"dataset {folder}: {what}; a stored dataset is read only as it was written; delete the folder and run the "
        "same command again"
    )


def fold_spans(dataset: Dataset) -> Sequence[tuple[np.datetime64, np.datetime64]]:
    """First and last test decision of every fold."""
    times = [dataset.samples.time[fold.test] for fold in dataset.folds]
    return [(time.min(), time.max()) for time in times]
