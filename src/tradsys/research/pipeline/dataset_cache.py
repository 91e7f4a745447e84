"""The on-disk form of a dataset: samples, folds and their digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tradsys.core.runs import digest_json, write_json, written_atomically
from tradsys.core.tables import Array, FeatureTable, Fold, Samples
from tradsys.features.feature_set import FeatureSet
from tradsys.research.pipeline.dataset import Panel

PARTS = ("train", "valid", "test")


COLUMNS = ("symbol", "time", "segment")


OF_SAMPLES = ("rows", "y", "weight", "start", "end", "ret")


def panel_digest(panel: Panel) -> str:
    """Digest of all numbers of a panel that a fit or its judgement can see."""
    table, samples = panel.samples.table, panel.samples
    arrays = [getattr(table, name) for name in COLUMNS] + [getattr(samples, name) for name in OF_SAMPLES]
    folds = [getattr(fold, part) for fold in panel.folds for part in PARTS]
    return digest_json([table.names, table.symbols, len(panel.folds), _digest(table.values, *arrays, *folds)])


def _digest(*arrays: Array) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(repr((array.shape, array.dtype.str)).encode())
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def save_panel(panel: Panel, folder: Path) -> None:
    """Writes the panel whole into `folder`, which `load_panel` maps into memory; nothing where it stands already."""
    if folder.is_dir():
        return
    samples = panel.samples
    arrays = {name: getattr(samples.table, name) for name in COLUMNS} | {n: getattr(samples, n) for n in OF_SAMPLES}
    arrays |= {f"{part}_{k}": getattr(fold, part) for k, fold in enumerate(panel.folds) for part in PARTS}
    with written_atomically(folder) as draft:
        draft.mkdir()
        np.save(draft / "values.npy", samples.table.values)
        np.savez(draft / "arrays.npz", allow_pickle=False, **arrays)
        about = {"names": samples.table.names, "symbols": samples.table.symbols, "n_folds": len(panel.folds)}
        write_json(
            draft / "about.json", about | {"data_digest": panel.data_digest, "features": panel.features.to_json()}
        )


@lru_cache(maxsize=2)
def load_panel(folder: Path) -> Panel:
    """The panel that `save_panel` wrote. Its values are pages of the file, shared by all processes that map it.

    Copy on write: a model that scales in place changes pages of its own process, never the file.
    """
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as kept:
        arrays = {name: kept[name] for name in kept.files}
    table = FeatureTable(
        values=np.asarray(np.load(folder / "values.npy", mmap_mode="c")),
        names=tuple(about["names"]),
        symbols=tuple(about["symbols"]),
        **{name: arrays[name] for name in COLUMNS},
    )
    folds = tuple(_fold(arrays, k) for k in range(about["n_folds"]))
    samples = Samples(table=table, **{name: arrays[name] for name in OF_SAMPLES})
    return Panel(about["data_digest"], FeatureSet.from_json(about["features"]), samples, folds)


def _fold(arrays: Mapping[str, Array], k: int) -> Fold:
    return Fold(**{part: arrays[f"{part}_{k}"] for part in PARTS})


def fold_spans(panel: Panel) -> Sequence[tuple[np.datetime64, np.datetime64]]:
    """First and last test decision of every fold."""
    times = [panel.samples.time[fold.test] for fold in panel.folds]
    return [(time.min(), time.max()) for time in times]
