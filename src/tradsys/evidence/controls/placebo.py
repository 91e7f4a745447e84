"""Whether a veto helps: paired differences, placebo vetoes at other times, precision at equal recall.

A veto is compared with placebos: as many vetoes, with the same clustering in time, but drawn without information on
the outcomes. Every difference is paired: both sides use the same resampled days. Legend:
T days, K strategies, D weightings of days, N candidates, R rows, P placebos, B bars of the common clock, S symbols.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.headline import EstimateRow
from tradsys.core.plain_data import Json
from tradsys.core.tables import Array
from tradsys.evidence.bootstrap import Estimate
from tradsys.evidence.cosines import spread
from tradsys.evidence.sharpe import flat_variance

ALPHA = 0.05
# finite-difference step of the time weights: the cut at equal recall must pass several candidates
_WIDE_STEP = 0.25
MIN_PLACEBOS = 19  # with fewer, not even the best has a p-value of 0.05


@dataclass(frozen=True, eq=False)
class DailyRecord:
    """Daily record of K strategies.

    returns: simple returns after costs, float64 [T, K]. gains: sum of the net returns of the trades decided on that day
    [T, K]; trades: their number [T, K].
    """

    returns: Array
    gains: Array
    trades: Array

    def __post_init__(self) -> None:
        shapes = {np.shape(part) for part in (self.returns, self.gains, self.trades)}
        if len(shapes) != 1 or self.returns.ndim != 2 or 0 in self.returns.shape:
            raise DataError(f"daily record: shapes {sorted(shapes)}; all three are [T, K]; give one row a day")
        if not (np.isfinite(self.returns).all() and np.isfinite(self.gains).all()):
            raise DataError("daily record: returns or gains that are not finite; a day without trades is 0")

    def columns(self, some: slice) -> "DailyRecord":
        """The record of some of the strategies."""
        return DailyRecord(self.returns[:, some], self.gains[:, some], self.trades[:, some])

    def sharpe(self) -> Array:
        """Sharpe ratio per day [K] (ddof 1); 0 where the returns never differ.

        Such a strategy held cash.
        """
        return self._drawn(np.ones((1, len(self.returns))))[0][0]

    def per_trade(self) -> Array:
        """Mean net return of a trade [K], NaN without a trade."""
        return self._drawn(np.ones((1, len(self.returns))))[1][0]

    def _drawn(self, weight_DT: Array) -> tuple[Array, Array]:
        """`sharpe` and `per_trade` of each weighting of the days, float64 [D, K] each."""
        n_days = len(self.returns)
        mean = weight_DT @ self.returns / n_days
        square = weight_DT @ self.returns**2
        variance = (square - n_days * mean**2) / max(1, n_days - 1)
        flat = flat_variance(variance, square / n_days)
        sharpe = np.where(flat, 0.0, mean / np.sqrt(np.where(flat, 1.0, variance)))
        n_trades = weight_DT @ self.trades
        per_trade = weight_DT @ self.gains / np.where(n_trades > 0, n_trades, np.nan)
        return sharpe, per_trade


@dataclass(frozen=True)
class PairedDifference:
    """Difference between two records.

    sharpe: yearly; per_trade: mean net return of a trade. p_value: two-sided, of equal Sharpe ratios, from the interval
    of `sharpe`; None where that has none.
    """

    sharpe: Estimate
    per_trade: Estimate
    p_value: float | None

    def as_dict(self) -> dict[str, EstimateRow | float | None]:
        """The three fields, ready for JSON."""
        return {"sharpe": self.sharpe.as_dict(), "per_trade": self.per_trade.as_dict(), "p_value": self.p_value}


def paired_differences(
    one: DailyRecord,
    other: DailyRecord,
    *,
    periods_per_year: float,
    min_block: float = 1.0,
    confidence: float = 0.95,
) -> PairedDifference:
    """Advantage of `one` over `other`, with intervals.

    Where a record has several strategies their mean counts, so placebos are compared as one. Both sides use
    the same days; blocks are as long as the daily returns of `one`, or their difference from those of `other`, need, at
    least `min_block`. A side without a trade has no `per_trade`.
    Raises DataError on records of different days.
    """
    if len(one.returns) != len(other.returns):
        raise DataError(f"paired: {len(one.returns)} days against {len(other.returns)}; both must be on the same days")
    mine, theirs = one.returns.mean(axis=1), other.returns.mean(axis=1)
    scale = np.array([np.sqrt(periods_per_year), 1.0])

    def difference(weight_DT: Array) -> Array:
        sides = [[_mean_of_known(part) for part in record._drawn(weight_DT)] for record in (one, other)]
        return (np.stack(sides[0], axis=1) - np.stack(sides[1], axis=1)) * scale

    cells = max(one.returns.shape[1], other.returns.shape[1])
    series = np.column_stack([mine, mine - theirs])
    found = spread(difference, len(mine), series, min_block=min_block, cells=cells)
    idle = [None if np.isfinite(v) else "one side never traded" for v in found.value_M]
    sharpe, per_trade = found.estimates(confidence, idle)
    p = float(found.p_values()[0])  # NaN also where both sides were equal on every day
    return PairedDifference(sharpe, per_trade, p if sharpe.low is not None and np.isfinite(p) else None)


def _mean_of_known(values_DK: Array) -> Array:
    """Mean over strategies [D] without NaN; NaN where none has a value."""
    known = np.isfinite(values_DK)
    n_known = known.sum(axis=1)
    return np.where(known, values_DK, 0.0).sum(axis=1) / np.where(n_known > 0, n_known, np.nan)


def rotated_vetoes(
    score_R: Array, symbol_R: Array, bar_R: Array, candidate_N: Array, n_kept: int, *, n_draws: int, min_shift: int,
    seed: int,
) -> Array:  # fmt: skip
    """Which candidates each placebo lets pass, bool [P, N].

    Each passes exactly `n_kept`, chosen without information.
    A placebo is the evaluated auditor with its scores shifted in time: a candidate gets the auditor's score of some
    bars later (all symbols by the same number, the end continued at the start), and the `n_kept`
    candidates with the highest scores pass. So coverage is equal, and scores cluster over bars and agree over symbols
    as the auditor's do; independent coin flips would not, and would make any auditor that clusters look special.

    score_R: the auditor's scores, one per row, not only candidates'; symbol_R: codes; bar_R: bar of each row on the
    common clock, from 0. candidate_N: row numbers. min_shift: least shift, either way, beyond which scores carry no
    information on the outcome. There are at most as many placebos as shifts. A (symbol, bar) without a row gets a
    random score. Raises DataError unless 0 < n_kept < N.
    """
    if not 0 < n_kept < len(candidate_N):
        raise DataError(
            f"placebo: {n_kept} of {len(candidate_N)} candidates pass; a veto stops some and not all; there is "
            "nothing to compare with otherwise"
        )
    if not np.isfinite(score_R).all():
        raise DataError(
            f"placebo: {int((~np.isfinite(score_R)).sum())} of {len(score_R)} scores are not finite; every row has "
            "one; drop rows without a score"
        )
    rng = np.random.default_rng(seed)
    n_bars = int(bar_R.max()) + 1
    panel_SB = np.full((int(symbol_R.max()) + 1, n_bars), np.nan)
    panel_SB[symbol_R, bar_R] = score_R
    missing = np.isnan(panel_SB)
    panel_SB[missing] = rng.choice(score_R, int(missing.sum()))
    shifts = rng.permutation(np.arange(min_shift, n_bars - min_shift + 1))[:n_draws]
    kept = np.zeros((len(shifts), len(candidate_N)), dtype=bool)
    at_symbol, at_bar = symbol_R[candidate_N], bar_R[candidate_N]
    for p, shift in enumerate(shifts):
        shifted = panel_SB[at_symbol, (at_bar + shift) % n_bars]
        # ties are broken at random, never by their position in time
        kept[p, np.lexsort((rng.random(len(shifted)), -shifted))[:n_kept]] = True
    return kept


def against_placebos(value: float, placebos_P: Array) -> dict[str, float | int | None]:
    """Rank of a value among its placebos, with a one-sided p-value.

    Also the placebos' mean and middle 95 %. p = (1 + number of placebos that reach the value) / (1 + P). A placebo
    without a value (NaN) counts as reaching it. None where the value itself is undefined. Source: Davison & Hinkley
    1997, eq. 4.11.
    """
    known = placebos_P[np.isfinite(placebos_P)]
    if not np.isfinite(value) or len(known) == 0:
        return {"value": None, "mean": None, "low": None, "high": None, "p_value": None, "n": len(placebos_P)}
    low, high = np.quantile(known, [0.025, 0.975])
    reached = len(placebos_P) - int((known < value).sum())
    return {
        "value": float(value),
        "mean": float(known.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": (1 + reached) / (1 + len(placebos_P)),
        "n": len(placebos_P),
    }


def precision_lift(
    paid_N: Array,
    kept_N: Array,
    score_N: Array,
    time_N: Array,
    *,
    min_block: float,
    confidence: float = 0.95,
) -> Json:
    """Precision of a veto compared with a higher score threshold at equal recall.

    paid_N: whether the candidate's outcome was good. kept_N: whether the veto let it pass. score_N: scores of the first
    model. time_N: decision times; candidates of one time count together, and blocks have at
    least `min_block` times. Returns JSON: n, n_kept, base (share that paid), precision of the kept, recall (share of
    the good that were kept), matched (precision of the highest scores at the same recall, inside a run of equal
    scores in proportion), lift = precision - matched as an Estimate. The lift is None where none of the kept paid.
    """
    if not len(score_N) or not np.isfinite(score_N).all():
        raise DataError(
            f"precision lift: {len(score_N)} candidates, {int((~np.isfinite(score_N)).sum())} scores not finite; at "
            "least one, all known; drop candidates without a score"
        )
    order = np.argsort(-score_N, kind="stable")
    paid, kept, score = paid_N[order].astype(np.float64), kept_N[order].astype(np.float64), score_N[order]
    times, code = np.unique(time_N[order], return_inverse=True)
    first = np.flatnonzero(np.concatenate([[True], score[1:] != score[:-1]]))

    def measured(weight_DT: Array) -> Array:
        weight_DN = weight_DT[:, code]
        good, passed = weight_DN @ paid, weight_DN @ kept
        hits = weight_DN @ (paid * kept)
        precision, recall = _ratio(hits, passed), _ratio(hits, good)
        matched = _precision_at(hits, weight_DN, paid, first)
        return np.stack([precision, recall, matched, precision - matched], axis=1)

    lean_T = np.bincount(code, weights=(paid - paid.mean()) * kept, minlength=len(times))
    found = spread(measured, len(times), lean_T, min_block=min_block, cells=len(paid), step=_WIDE_STEP)
    value = found.value_M
    known = [float(v) if np.isfinite(v) else None for v in value[:3]]
    return {
        "n": len(paid),
        "n_kept": int(kept.sum()),
        "base": float(paid.mean()),
        **dict(zip(("precision", "recall", "matched"), known, strict=True)),
        "lift": found.estimates(confidence)[3].as_dict(),
    }


def _ratio(part: Array, whole: Array) -> Array:
    return part / np.where(whole > 0, whole, np.nan)


def _precision_at(hits_D: Array, weight_DN: Array, paid_N: Array, first: Array) -> Array:
    """Precision [D] of the highest scores that hold `hits_D` good candidates; NaN where that is none.

    Candidates are sorted by falling score; first: where each run of equal scores starts.
    """
    good_DG = np.cumsum(np.add.reduceat(weight_DN * paid_N, first, axis=1), axis=1)
    all_DG = np.cumsum(np.add.reduceat(weight_DN, first, axis=1), axis=1)
    draw = np.arange(len(hits_D))
    run = np.minimum((good_DG < hits_D[:, None] - 1e-9).sum(axis=1), good_DG.shape[1] - 1)
    before = np.maximum(run - 1, 0)
    good_before = np.where(run > 0, good_DG[draw, before], 0.0)
    all_before = np.where(run > 0, all_DG[draw, before], 0.0)
    share = _ratio(hits_D - good_before, good_DG[draw, run] - good_before)
    taken = all_before + share * (all_DG[draw, run] - all_before)
    return np.where(hits_D > 0, _ratio(hits_D, np.nan_to_num(taken)), np.nan)


def helps(
    placebos: Mapping[str, Mapping[str, Any]],
    against_placebo: PairedDifference,
    against_none: PairedDifference,
    *,
    n_trades: int,
    min_trades: int,
) -> Json:
    """`yes`, `no` or `cannot be determined`, with the reasons.

    placebos: `against_placebos` of `sharpe` and `per_trade`. against_placebo, against_none: `paired_differences` from
    the placebos, and from the same strategy without the veto. Yes requires all of: both p-values at most 0.05; the mean
    net return of a trade above the placebos' in its complete interval; a Sharpe above that without any veto, since a
    veto that picks well but leaves too little is no help. Anything else is a no; too few trades or placebos cannot be
    determined.
    """
    n_placebos = int(placebos["sharpe"]["n"])
    if n_trades < min_trades or n_placebos < MIN_PLACEBOS:
        few = f"{n_trades} closed trades (least {min_trades}), {n_placebos} placebos (least {MIN_PLACEBOS})"
        return {"kind": "cannot be determined", "reasons": [few]}
    failed = []
    for name, words in (("sharpe", "Sharpe"), ("per_trade", "net return of a trade")):
        p_value = placebos[name]["p_value"]
        if p_value is None or p_value > ALPHA:
            shown = "unknown" if p_value is None else f"{p_value:.3f}"
            failed.append(f"{words}: p = {shown} among {n_placebos:,} placebos that veto as much (most {ALPHA:g})")
    gain, sharpe = against_placebo.per_trade, against_none.sharpe
    if gain.low is None or gain.low <= 0:
        failed.append("the net return of a trade is not above that of the placebos in its complete interval")
    if sharpe.value is None or sharpe.value <= 0:
        failed.append("the Sharpe is no higher than that of the same strategy without the auditor")
    good = (
        "it beats placebos that veto as much in Sharpe and in net return of a trade, and the same strategy without it"
    )
    return {"kind": "no" if failed else "yes", "reasons": failed or [good]}


def trade_means(gains_TK: Array, trades_TK: Array, *, min_block: float, confidence: float = 0.95) -> list[Estimate]:
    """Mean net return of a trade of K groups, with intervals over days.

    None without a trade. gains_TK: sum of the net returns of the trades decided on a day; trades_TK: how many.
    """

    def means(weight_DT: Array) -> Array:
        return _ratio(weight_DT @ gains_TK, weight_DT @ trades_TK)

    found = spread(means, len(gains_TK), gains_TK, min_block=min_block, cells=gains_TK.shape[1])
    return found.estimates(confidence, [None if np.isfinite(v) else "no trade" for v in found.value_M])
