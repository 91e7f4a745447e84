"""Caches data shared by experiments on the same bars: digest, event masks, features and labels."""

import hashlib
import logging
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from tradsys.core.extensions import answer, is_own
from tradsys.core.protocols import Events
from tradsys.core.runs import digest_json, written_atomically
from tradsys.core.tables import Array, FeatureTable, Labels
from tradsys.features.feature_set import FeatureSet
from tradsys.market.bars import content_digest
from tradsys.research.pipeline.provenance import code_digest, processor

LOG = logging.getLogger(__name__)
GIGABYTE = 1e9
SUFFIX = ".values"
ABSENT = np.empty(0)  # placeholder of an absent part of labels


class DatasetCache:
    """Caches the digest, event masks, feature tables and labels of one set of bars.

    bars: with segments, as `dataset.load_bars` returns them. store: where feature values and labels are kept between
    runs; None keeps features within this run only.
    """

    def __init__(self, bars: pl.DataFrame, store: "ValueStore | None" = None) -> None:
        self.bars = bars
        self._store = store
        self._masks: list[tuple[Events, Array]] = []
        self._tables: list[tuple[FeatureSet, FeatureTable]] = []
        self._fresh: list[tuple[str, list[Array]]] = []  # labels that no earlier run has stored

    @cached_property
    def digest(self) -> str:
        """Digest of the bars' content."""
        return content_digest(self.bars)

    def mask(self, events: Events | None) -> Array | None:
        """bool [R], where these events decide; None for none."""
        if events is None:
            return None
        if not (known := [mask for other, mask in self._masks if other == events]):
            known = [answer(events, "mask", self.bars, kind=np.ndarray)]
            self._masks.append((events, known[0]))
        return known[0]

    def table(self, features: FeatureSet) -> FeatureTable:
        """The table of a fitted feature set; one for all sets with equal definitions."""
        if not (known := [table for other, table in self._tables if _rules(other) == _rules(features)]):
            known = [self._stored_or_computed(features)]
            self._tables.append((features, known[0]))
        return known[0]

    def _stored_or_computed(self, features: FeatureSet) -> FeatureTable:
        kinds = {type(features), *(type(feature) for feature in features.features)}
        if self._store is None or not all(is_own(kind) for kind in kinds):
            return features.table(self.bars)
        key = self._key({"features": features.to_json(), "names": list(features.names)})
        shape = (self.bars.height, len(features.names))
        kept = self._store.load(key, 1)
        if kept is not None and kept[0].shape == shape and kept[0].dtype == np.float32:
            LOG.info("features of %s rows read from %s", f"{shape[0]:,}", self._store.folder)
            return features.table(self.bars, kept[0])
        table = features.table(self.bars)
        self._store.save(key, table.values)
        return table

    def labels(
        self, label: object, settings: Mapping[str, Any], side: Array | None, compute: Callable[[], Labels]
    ) -> Labels:
        """Labels [R] as `compute` returns them, loaded where stored.

        Stored by an earlier run; `keep` writes new ones. label: the rule with its fields. settings: what else
        determines the labels. side: int8 [R] of the labels, or None. A label of another package is computed each time:
        changes of its code are not detected.
        """
        if self._store is None or not (is_own(type(label)) and is_dataclass(label)):
            return compute()
        along = None if side is None else _sha(np.asarray(side)).hex()
        key = self._key({"label": f"{type(label).__qualname__}: {label!r}", "settings": dict(settings), "side": along})
        names = [field.name for field in fields(Labels)]
        kept = self._store.load(key, len(names))
        if kept is not None and {len(a) for a in kept} <= {self.bars.height, 0}:
            LOG.info("labels of %s rows read from %s", f"{self.bars.height:,}", self._store.folder)
            known: dict[str, Any] = {name: a if len(a) else None for name, a in zip(names, kept, strict=True)}
            return Labels(**known)
        found = compute()
        parts = (getattr(found, name) for name in names)
        self._fresh.append((key, [ABSENT if part is None else np.asarray(part) for part in parts]))
        return found

    def keep(self) -> None:
        """Writes computed labels.

        Called once a dataset uses them, so that a refused one leaves nothing.
        """
        while self._store is not None and self._fresh:
            key, parts = self._fresh.pop()
            self._store.save(key, *parts)

    def _key(self, what: Mapping[str, Any]) -> str:
        """Digest of these settings and of all else that determines values: code, versions, processor and bars."""
        bars = self.bars
        segment = np.ascontiguousarray(bars["segment"].cast(pl.Int64).to_numpy())
        return digest_json(
            {
                **what,
                "code": code_digest(),
                "versions": [platform.python_version(), np.__version__, pl.__version__, processor()],
                "bars": self.digest,
                "order": bars["symbol"].unique(maintain_order=True).to_list(),
                "segment": _sha(segment).hex(),
                "schema": {name: str(kind) for name, kind in bars.schema.items()},
            }
        )


@dataclass(frozen=True)
class ValueStore:
    """Feature values and labels on disk, one file per digest.

    Of code, settings and bars; the least recently used are removed.

    A damaged entry counts as absent. Nothing is stored where the folder cannot be written.
    """

    folder: Path
    max_gb: float

    @classmethod
    def of(cls, paths: Mapping[str, Any]) -> Self | None:
        """The store configured in conf/paths.

        None where its limit is 0 or an older record has none.
        """
        limit = float(paths.get("cache_gb") or 0)
        return cls(Path(paths["cache"]) / "features", limit) if limit > 0 and paths.get("cache") else None

    def load(self, key: str, n: int) -> list[Array] | None:
        """The n arrays as they were saved; None without an undamaged entry of n arrays."""
        path = self.folder / (key + SUFFIX)
        try:
            with path.open("rb") as file:
                digest = file.read(32)
                values = [np.lib.format.read_array(file, allow_pickle=False) for _ in range(n)]
        except (OSError, ValueError, EOFError):
            return None
        if _sha(*values) != digest:
            return None
        with suppress(OSError):
            path.touch()  # marks it as used last
        return values

    def save(self, key: str, *values: Array) -> None:
        """Stores these arrays, then removes the least recently used until all entries fit."""
        if sum(array.nbytes for array in values) > self.max_gb * GIGABYTE:
            return
        try:
            with written_atomically(self.folder / (key + SUFFIX)) as draft, draft.open("wb") as file:
                file.write(_sha(*values))
                for array in values:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            self._shrink()
        except OSError as error:
            LOG.warning("values are not kept for the next run (%s); free space or set paths.cache_gb=0", error)

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


def _sha(*values: Array) -> bytes:
    """SHA-256 of shapes, types and content."""
    found = hashlib.sha256()
    for array in values:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()


def _rules(features: FeatureSet) -> tuple[Any, ...]:
    """Key of all that determines a feature set's table: features with parameters, ranks, gap, market."""
    return tuple(features.features), features.names, features.max_gap_minutes, features.market_symbol
