"""Estimates the memory and disk that a run needs from its config, before bars or torch are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tradsys.core.clock import utc
from tradsys.core.errors import DataError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.received import read_json

# Peaks of whole runs of `train` (VmHWM, VmPeak), the synthetic market, 48 features, one thread, torch 2.13 for CPUs.
# 1,000 placebos: 1.149 GB at 9,000 rows, 1.168 GB at 36,000. 100 placebos: 1.109 GB at 36,000 rows, 1.293 GB at
# 180,000, so 1,280 bytes a row of 192 bytes of features: every byte of the table of features is held 6.7 times.
# 0.37 GB of each peak are libraries' own pages, which the kernel drops where memory is short.
TABLE_FACTOR = 6.7
BASE_BYTES = 0.77e9
LIBRARY_BYTES = 0.37e9
BASE_ADDRESS_SPACE = 4.3e9
# A run without a net loads no torch. 48 features, 1,000 placebos: model=logistic at 14,000 rows 0.651 GB, of which 0.28
# are libraries' own pages; model=lightgbm at 120,000 rows 0.852 GB (0.24), at 280,000 rows 1.214 GB (0.24).
LEAN_TABLE_FACTOR = 11.0
LEAN_BASE_BYTES = 0.385e9
LEAN_LIBRARY_BYTES = 0.24e9
# a run folder of 9,000 rows took 5.8 MB, one of 36,000 rows 6.1 MB; a second one's checkpoints come on top
DISK_BASE_BYTES, DISK_BYTES_PER_ROW = 20e6, 25.0


@dataclass(frozen=True)
class ResourceEstimate:
    """Resource estimate of a run.

    rows: bars of all symbols, None if unknown. n_features: columns of the table. memory: least bytes that a run needs;
    comfort: bytes with which its libraries' pages are never evicted. address_space: bytes of RLIMIT_AS. disk: bytes
    that a run writes. has_net: whether a model is a net, which loads torch.
    """

    rows: int | None
    n_features: int
    has_net: bool = True

    @property
    def table(self) -> float:
        """The float32 table of features, bytes."""
        return 4.0 * (self.rows or 0) * self.n_features

    @property
    def _terms(self) -> list[tuple[float, float]]:
        """Base and factor of the table; the least sum of them holds, since a net makes no run smaller."""
        lean = [] if self.has_net else [(LEAN_BASE_BYTES, LEAN_TABLE_FACTOR)]
        return [(BASE_BYTES, TABLE_FACTOR), *lean]

    @property
    def memory(self) -> float:
        """Of one process."""
        return min(base + factor * self.table for base, factor in self._terms)

    @property
    def comfort(self) -> float:
        """Of one process, libraries included."""
        return self.memory + (LIBRARY_BYTES if self.has_net else LEAN_LIBRARY_BYTES)

    @property
    def address_space(self) -> float:
        """Of one process."""
        return BASE_ADDRESS_SPACE + TABLE_FACTOR * self.table

    @property
    def disk(self) -> float:
        """Of one run folder."""
        return DISK_BASE_BYTES + DISK_BYTES_PER_ROW * (self.rows or 0)

    def rows_within(self, memory: float) -> int:
        """Number of bars that fit into so much memory; 0 where not even the libraries fit."""
        fit = (int((memory - base) / (factor * 4 * max(1, self.n_features))) for base, factor in self._terms)
        return max(0, *fit)


def estimate_of(config: Mapping[str, Any]) -> ResourceEstimate:
    """The resource estimate for the resolved config of `train` or `tune`.

    Raises DataError where its stored bars are missing, TradsysError where its features are no lists.
    """
    n_features = 0
    for key in ("features", "extra"):
        listed = config["features"].get(key) or []
        if not isinstance(listed, list):
            raise TradsysError(f"config: features.{key}={listed!r}; it takes a list; give features.{key}=[...]")
        n_features += len(listed)
    # a sweep may choose a net where the configured model is none
    parts = [config.get(part, {"net": "unknown"}) for part in ("model", "baselines")]
    has_net = "sweep" in config or any(map(_holds_net, parts))
    return ResourceEstimate(rows_of(config["data"]["source"]), n_features, has_net)


def _holds_net(part: Any) -> bool:
    """Whether a configured part is a net, holds one, or is of another package."""
    if isinstance(part, Mapping):
        target = str(part.get("_target_", "tradsys."))
        return "net" in part or not target.startswith("tradsys.") or any(map(_holds_net, part.values()))
    return isinstance(part, list) and any(map(_holds_net, part))


def estimate_or_error(config: Mapping[str, Any]) -> ResourceEstimate | DataError:
    """`estimate_of`, or its DataError as a value."""
    try:
        return estimate_of(config)
    except DataError as error:
        return error


def rows_of(source: Mapping[str, Any]) -> int | None:
    """Number of bars of a source over all symbols; None where only reading shows it.

    For part of a stored dataset's span it is estimated in proportion to time. Raises DataError where the
    dataset is missing or damaged.
    """
    if {"n_bars", "symbols"} <= source.keys():
        # an invalid count is refused where the source is built
        return source["n_bars"] * len(source["symbols"]) if isinstance(source["n_bars"], int) else None
    if not {"root", "name", "start", "end"} <= source.keys():
        return None
    manifest = _manifest(Path(source["root"]), source["name"])
    wanted = source.get("symbols") or manifest["symbols"]
    rows = 0.0
    for symbol in set(wanted) & manifest["symbols"].keys():  # an unknown symbol is refused when bars are read
        entry = manifest["symbols"][symbol]
        first, last = _utc_of(entry["start"]), _utc_of(entry["end"])
        begins = max(first, _utc_of(source["start"])) if source["start"] else first
        ends = min(last, _utc_of(source["end"])) if source["end"] else last
        whole = (last - first).total_seconds()
        share = (ends - begins).total_seconds() / whole if whole else 1.0
        rows += entry["n_rows"] * min(1.0, max(0.0, share))
    return round(rows)


def _manifest(root: Path, name: str) -> Json:
    """The manifest of a dataset, read without polars; its digests are verified when bars are read."""
    path = root / name / "manifest.json"
    if not path.is_file():
        raise DataError(
            f"store {root}: no dataset {name!r}; bring it in with `python -m tradsys.fetch source=file path=... "
            f"layout=... name={name}`, or use data=synthetic"
        )
    found: Json = read_json(path, "fetch the dataset again", DataError)
    return found


def _utc_of(text: str) -> datetime:
    return utc(str(text))
