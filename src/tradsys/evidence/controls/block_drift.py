"""Drift of a block of recent bars from a span: its shift is ranked among the shifts of the span's own blocks.

Features of a market are slow: any ten days differ from a year by far more than independent rows would, so that fixed
limits (a PSI of 0.25, an AUC above 0.5) warn on markets that did not change. Here the limit comes from the span
itself: 39 blocks of it, each compared with the rest outside its neighbourhood. Without drift a later block is
exchangeable with them, and exceeds all 39 with probability 1/40.
Legend: N rows, F columns, B bins, K blocks, M rows of the sample.
Source: permutation test by rank, Davison & Hinkley 1997, section 4.2.5; PSI, Siddiqi 2006, ch. 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array

N_BLOCKS = 39
MOST_BARS, LEAST_BARS = 240, 40  # of a block; the classifier holds out half a block, at least 20 rows
N_BINS = 10
SAMPLE_ROWS = 500  # of a span or a block that the classifier reads
CLASSIFIER: dict[str, int] = {
    "n_folds": 2,
    "n_trees": 20,
    "max_bin": 31,
}  # small: it is fitted for every block of the span
MAX_CELLS = 2_000_000  # of one array in a received reference


def population_stability(counts: Array, expected: Array) -> Array:
    """PSI of counts [..., B] against expected counts [..., B].

    Sum of (a - e) ln(a / e) over the shares of bins.
    A bin that is empty on one side counts half a value there; one that is empty on both is left out.
    Raises DataError for counts that are no counts, or without any row.
    Source: Siddiqi 2006, Credit Risk Scorecards, ch. 8.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (counts, expected)]
    if not all(side.size and np.isfinite(side).all() and (side >= 0).all() and side.sum(-1).all() for side in sides):
        raise DataError(
            f"population stability: counts of shapes {[side.shape for side in sides]}, minima "
            f"{[side.min(initial=0) for side in sides]}; they are finite, >= 0, not all 0; pass rows per bin"
        )
    filled = (sides[0] > 0) | (sides[1] > 0)
    a, e = (np.where(filled, np.maximum(side, 0.5), 0.0) for side in sides)
    a, e = a / a.sum(axis=-1, keepdims=True), e / e.sum(axis=-1, keepdims=True)
    ratio = np.divide(a, e, out=np.ones_like(a), where=filled)
    shift: Array = ((a - e) * np.log(ratio)).sum(axis=-1)
    return shift


@dataclass(frozen=True)
class Shift:
    """Distance of a block from the span.

    psi: PSI by column. moved: columns whose PSI, divided by its mean over the blocks, exceeds that of every column of
    every block of the span. auc: of the classifier, or None; auc_limit: the highest of the span's own blocks.
    """

    psi: dict[str, float]
    moved: tuple[str, ...]
    auc: float | None = None
    auc_limit: float | None = None

    @property
    def is_distinguished(self) -> bool:
        """Whether the block differs from the span more than the span's own do.

        Measured by how well a classifier separates it.
        """
        return self.auc is not None and self.auc_limit is not None and self.auc > self.auc_limit


@dataclass(frozen=True, eq=False)
class BlockReference:
    """Reference of a span against which later blocks are compared.

    n_bars: distinct times of a block. edges [F, B-1]: inner edges of equally likely bins. counts [F, B]: rows of the
    span per bin. psi [K, F]: of each of its blocks against the rest. auc [K] and sample [M, F]: for the classifier;
    empty where it is left out.
    """

    names: tuple[str, ...]
    n_bars: int
    edges: Array
    counts: Array
    psi: Array
    auc: Array
    sample: Array

    @classmethod
    def of(
        cls, values: Array, time: Array, names: Sequence[str], *, rows: Array | None = None, classifier: bool = True
    ) -> Self:
        """The reference of these values [N, F] at these times [N].

        rows [N]: which rows of `values` they are; None: all. Raises DataError where the span is too short for 39
        blocks.
        """
        order = np.argsort(time, kind="stable")
        at = np.asarray(time)[order]
        first = np.append(np.flatnonzero(np.append(True, at[1:] != at[:-1])[: len(at)]), len(at))  # row of each time
        n_times = len(first) - 1
        n_bars = min(MOST_BARS, n_times // N_BLOCKS)
        if n_bars < LEAST_BARS:
            raise DataError(f"{n_times} bars; {N_BLOCKS} blocks of {LEAST_BARS} need {N_BLOCKS * LEAST_BARS}")
        x, inner = np.asarray(values), np.linspace(0, 1, N_BINS + 1)[1:-1]
        of_time = order if rows is None else np.asarray(rows)[order]  # rows of x in time order
        edges, codes = np.empty((x.shape[1], N_BINS - 1)), []
        for f in range(x.shape[1]):  # one at a time: the span may be most of the memory
            column = x[of_time, f].astype(np.float64)
            edges[f] = np.quantile(column, inner)
            codes.append(codes_between(column[:, None], edges[[f]])[:, 0].astype(np.uint8))
        code = np.stack(codes, axis=1)
        counts = _counted(code)
        psi, auc = np.empty((N_BLOCKS, x.shape[1])), np.empty(N_BLOCKS if classifier else 0)
        for k in range(N_BLOCKS):
            start = k * (n_times - n_bars) // (N_BLOCKS - 1)
            block = slice(first[start], first[start + n_bars])
            near = slice(first[max(0, start - n_bars)], first[min(n_times, start + 2 * n_bars)])
            psi[k] = population_stability(_counted(code[block]), counts - _counted(code[near]))
            if classifier:
                rest = np.concatenate([of_time[: near.start], of_time[near.stop :]])
                auc[k] = _held_out_auc(x[_sampled(rest)], x[_sampled(of_time[block])], names)
        sample = x[_sampled(of_time)].astype(np.float64) if classifier else np.empty((0, x.shape[1]))
        return cls(tuple(names), n_bars, edges, counts, psi, auc, sample)

    def compare(self, block: Array) -> Shift:
        """The shift of the rows [n, F] of `n_bars` later bars from the span.

        Rows in time order, all finite.
        """
        psi = population_stability(
            _counted(codes_between(np.asarray(block, dtype=np.float64), self.edges)), self.counts
        )
        every = np.concatenate([self.psi, psi[None]])
        ratio = every / np.maximum(every.mean(axis=0), 1e-12)
        moved = np.flatnonzero(ratio[-1] > ratio[:-1].max())
        largest_first = moved[np.argsort(-ratio[-1][moved], kind="stable")]
        auc = _held_out_auc(self.sample, block, self.names) if len(self.auc) else None
        return Shift(
            psi=dict(zip(self.names, psi.tolist(), strict=True)),
            moved=tuple(self.names[k] for k in largest_first),
            auc=auc,
            auc_limit=None if auc is None else float(self.auc.max()),
        )

    def to_json(self) -> Json:
        """Plain values.

        Edges are exact, and the sample to float32: a rounded tie would separate a block from it.
        """
        digits = {"edges": 17, "counts": 17, "psi": 6, "auc": 6, "sample": 9}
        arrays = {name: _rounded(getattr(self, name), n) for name, n in digits.items()}
        return {"names": list(self.names), "n_bars": self.n_bars, **arrays}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """The reference that `to_json` wrote.

        Raises ValueError for arrays of inconsistent shapes or invalid numbers.
        """
        names, n_bars = tuple(map(str, body["names"])), int(body["n_bars"])
        n = len(names)
        if not n or not LEAST_BARS <= n_bars <= MOST_BARS:
            raise ValueError(
                f"a drift reference of {n} columns and {n_bars} bars a block; {LEAST_BARS} to {MOST_BARS} are valid"
            )
        arrays = {a: np.array(body[a], dtype=np.float64) for a in ("edges", "counts", "psi", "auc", "sample")}
        n_auc, n_sample = arrays["auc"].size, len(arrays["sample"])
        shapes = {
            "edges": (n, N_BINS - 1), "counts": (n, N_BINS), "psi": (N_BLOCKS, n), "auc": (n_auc,),
            "sample": (n_sample, n) if n_sample else (0,),
        }  # fmt: skip
        wrong = [a for a, s in shapes.items() if arrays[a].shape != s or arrays[a].size > MAX_CELLS]
        if wrong or n_auc not in (0, N_BLOCKS) or bool(n_auc) != bool(n_sample):
            raise ValueError(f"a drift reference whose {wrong or ['auc', 'sample']} do not fit its {n} columns")
        if not all(np.isfinite(of).all() for of in arrays.values()) or (np.diff(arrays["edges"]) < 0).any():
            raise ValueError("a drift reference with values that are no finite numbers, or edges that fall")
        return cls(names, n_bars, **arrays)


def codes_between(x: Array, edges: Array) -> Array:
    """Bin [N, F] of every value.

    edges [F, B-1] ascending, a value on an edge lies above it.
    """
    return np.stack([np.searchsorted(edges[f], x[:, f], side="right") for f in range(x.shape[1])], axis=1)


def _counted(code: Array) -> Array:
    """How many rows fall into each bin [F, B]; code [N, F]."""
    n_columns = code.shape[1]
    counts = [np.bincount(code[:, f], minlength=N_BINS) for f in range(n_columns)]
    return np.array(counts, dtype=np.float64).reshape(n_columns, N_BINS)


def _held_out_auc(span: Array, block: Array, names: Sequence[str]) -> float:
    from tradsys.evidence.controls.drift import adversarial_validation  # noqa: PLC0415 - loads LightGBM

    span, block = _sampled(span).astype(np.float32), _sampled(np.asarray(block)).astype(np.float32)
    return adversarial_validation(span, block, names, **CLASSIFIER).auc


def _sampled(x: Array) -> Array:
    """At most SAMPLE_ROWS rows, evenly spaced."""
    return x[np.linspace(0, len(x) - 1, min(len(x), SAMPLE_ROWS)).astype(np.int64)]


def _rounded(values: Array, digits: int) -> Any:
    if values.ndim > 1:
        return [_rounded(row, digits) for row in values]
    return [float(f"{v:.{digits}g}") for v in values.tolist()]
