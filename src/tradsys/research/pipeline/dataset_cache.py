"""What experiments on the same bars share: digest, event masks and feature tables, within a run and between runs."""

import hashlib
import logging
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.protocols import Events
from tradsys.core.runs import digest_json, written_atomically
from tradsys.core.tables import Array, FeatureTable
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest
from tradsys.research.pipeline.provenance import code_digest, processor

LOG = logging.getLogger(__name__)
GIGABYTE = 1e9
SUFFIX = ".values"


class DatasetCache:
    """Caches the digest, event masks and feature tables of one set of bars.

    bars: with segments, as `dataset.load_bars` returns them. store: where feature values are kept between runs; None
    keeps them within this run alone.
    """

    def __init__(self, bars: pl.DataFrame, store: "FeatureStore | None" = None) -> None:
        self.bars = bars
        self._store = store
        self._masks: list[tuple[Events, Array]] = []
        self._tables: list[tuple[FeatureSet, FeatureTable]] = []

    @cached_property
    def digest(self) -> str:
        """Of the bars' content."""
        return content_digest(self.bars)

    def mask(self, events: Events | None) -> Array | None:
        """Where these events decide, bool [R]; None for none."""
        if events is None:
            return None
        if not (known := [mask for other, mask in self._masks if other == events]):
            known = [events.mask(self.bars)]
            self._masks.append((events, known[0]))
        return known[0]

    def table(self, features: FeatureSet) -> FeatureTable:
        """The table of a fitted feature set; one for all sets that compute the same."""
        if not (known := [table for other, table in self._tables if _rules(other) == _rules(features)]):
            known = [self._stored_or_computed(features)]
            self._tables.append((features, known[0]))
        return known[0]

    def _stored_or_computed(self, features: FeatureSet) -> FeatureTable:
        key = None if self._store is None else _key(features, self.bars, self.digest)
        if self._store is None or key is None:
            return features.table(self.bars)
        shape = (self.bars.height, len(features.names))
        if (values := self._store.load(key, shape)) is not None:
            return features.table(self.bars, values)
        table = features.table(self.bars)
        self._store.save(key, table.values)
        return table


@dataclass(frozen=True)
class FeatureStore:
    """Feature values on disk, one file per digest of code, features and bars; the least recently used are removed.

    An entry that is damaged counts as absent. Nothing is kept where the folder cannot be written.
    """

    folder: Path
    max_gb: float

    @classmethod
    def of(cls, paths: Mapping[str, Any]) -> Self | None:
        """The store that conf/paths names; None where its limit is 0 or an older record names none."""
        limit = float(paths.get("cache_gb") or 0)
        return cls(Path(paths["cache"]) / "features", limit) if limit > 0 and paths.get("cache") else None

    def load(self, key: str, shape: tuple[int, int]) -> Array | None:
        """float32 [R, F] as it was saved; None where there is no undamaged entry of this shape."""
        path = self.folder / (key + SUFFIX)
        try:
            with path.open("rb") as file:
                digest = file.read(32)
                values = np.lib.format.read_array(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if values.shape != shape or values.dtype != np.float32 or _sha(values) != digest:
            return None
        with suppress(OSError):
            path.touch()  # used last
        LOG.info("features of %s rows read from %s", f"{shape[0]:,}", self.folder)
        return values

    def save(self, key: str, values: Array) -> None:
        """Keeps the values [R, F], then removes what was used least recently until all entries fit."""
        if values.nbytes > self.max_gb * GIGABYTE:
            return
        try:
            with written_atomically(self.folder / (key + SUFFIX)) as draft, draft.open("wb") as file:
                file.write(_sha(values))
                np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
            self._shrink()
        except OSError as error:
            LOG.warning("features are not kept for the next run (%s); free space or set paths.cache_gb=0", error)

    def _shrink(self) -> None:
        entries = []
        for path in self.folder.glob("*" + SUFFIX):
            with suppress(FileNotFoundError):  # another process removed it
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        spare = self.max_gb * GIGABYTE - sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries)[:-1]:  # never the one just written
            if spare >= 0:
                break
            path.unlink(missing_ok=True)
            spare += size


def _sha(values: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()


def _key(features: FeatureSet, bars: pl.DataFrame, digest: str) -> str | None:
    """Digest of all that decides the values; None where a feature's code is not tradsys's own."""
    kinds = {type(features), *(type(feature) for feature in features.features)}
    if any(kind.__module__.partition(".")[0] != "tradsys" for kind in kinds):
        return None
    segment = hashlib.sha256(np.ascontiguousarray(bars["segment"].cast(pl.Int64).to_numpy()).data).hexdigest()
    return digest_json(
        {
            "code": code_digest(),
            "versions": [platform.python_version(), np.__version__, pl.__version__, processor()],
            "features": features.to_json(),
            "names": list(features.names),
            "bars": digest,
            "order": bars["symbol"].unique(maintain_order=True).to_list(),
            "segment": segment,
            "schema": {name: str(kind) for name, kind in bars.schema.items()},
        }
    )


def _rules(features: FeatureSet) -> tuple[Any, ...]:
    """All that decides a feature set's table: its features with their parameters, its ranks, its gap, its market."""
    return tuple(features.features), features.names, features.max_gap_minutes, features.market_symbol
