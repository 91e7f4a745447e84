"""Complete out-of-sample paths of a cheap model: combinatorial purged cross-validation over all samples of a run.

The folds test every span, the test span included, so each path's daily returns enter the ledger (purpose "cpcv") and
deflate the Sharpe ratios of that span. A sequence model is too expensive to be refitted for every choice of
test groups; the logistic baseline then replaces it, and the section states so.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np

from tradsys.core.errors import DataError
from tradsys.core.plain_data import Json
from tradsys.core.progress.stages import counted
from tradsys.core.protocols import Model
from tradsys.core.tables import Array, Fold, Samples
from tradsys.evidence.sharpe import is_flat, sharpe_ratio
from tradsys.market.bars import utc_series
from tradsys.market.calendars import days_in_a_year, session_dates
from tradsys.models.linear import LogisticRegression
from tradsys.research.pipeline.dataset import Prepared, aware, side_of_labels
from tradsys.research.pipeline.requirements import path_folds
from tradsys.research.pipeline.settings import Experiment
from tradsys.research.pipeline.training import uncalibrated_model
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger
from tradsys.samples.splits import CombinatorialPurged, span_bars

LOG = logging.getLogger(__name__)
TOP = 0.9  # a path is long where the score reaches this quantile of its own fold's validation scores


@dataclass(frozen=True, eq=False)
class Paths:
    """Daily returns of one strategy on every path.

    days: datetime64[D] [D], days with samples' outcomes. returns_DP: simple returns on capital, float64 [D, P].
    sharpe_P: yearly Sharpe of each path; 0 where a path never took a position. periods_per_year: of the days.
    """

    days: Array
    returns_DP: Array
    sharpe_P: Array
    periods_per_year: float

    def as_dict(self) -> Json:
        """The report's section `paths`, ready for JSON.

        time [D], curves [P, D] of equity from 1, sharpe and its spread. `low` and `high` are the 5 % and 95 % quantiles
        of the paths: a spread, not a confidence interval, since paths share folds and days.
        """
        low, high = np.quantile(self.sharpe_P, [0.05, 0.95])
        return {
            "time": [str(day) for day in self.days],
            "curves": np.cumprod(1 + self.returns_DP, axis=0).T.tolist(),
            "sharpe": self.sharpe_P.tolist(),
            "mean": float(self.sharpe_P.mean()),
            "median": float(np.median(self.sharpe_P)),
            "low": float(low),
            "high": float(high),
            "worst": float(self.sharpe_P.min()),
            "share_positive": float((self.sharpe_P > 0).mean()),
            "n_paths": len(self.sharpe_P),
            "n_days": len(self.days),
            "periods_per_year": self.periods_per_year,
        }


def assemble(splitter: CombinatorialPurged, samples: Samples, fold_values: Sequence[Array]) -> Array:
    """Out-of-sample values of every sample on every path, [P, N] or [P, N, C].

    fold_values: for each fold of `splitter.split(samples)`, in that order, the values of its test samples in the
    order of `fold.test` (rising positions): probabilities, scores or positions, [n_test] or [n_test, C]. Raises
    DataError where folds or samples are missing or too many, or a value is not finite.
    """
    chosen, group = splitter.test_groups, splitter.groups(samples)
    if len(fold_values) != len(chosen):
        raise DataError(
            f"paths: values of {len(fold_values)} folds, the splitter has {len(chosen)}; every fold of the splitter "
            "supplies part of some path; give one array each"
        )
    spread = []
    for k, groups in enumerate(chosen):
        values, test = np.asarray(fold_values[k], dtype=np.float64), np.flatnonzero(np.isin(group, groups))
        if values.shape[:1] != test.shape:
            raise DataError(
                f"paths: fold {k} has {len(test)} test samples for values {values.shape}; every test sample "
                "needs one value, in order; predict the test samples of this fold"
            )
        if not np.isfinite(values).all():
            raise DataError(
                f"paths: fold {k} has values that are not finite; every test sample needs a prediction; leave out "
                "samples without a full window"
            )
        full = np.full((len(samples), *values.shape[1:]), np.nan)
        full[test] = values
        spread.append(full)
    return np.stack([np.stack(spread)[path[group], np.arange(len(samples))] for path in splitter.paths()])


def path_returns(
    splitter: CombinatorialPurged,
    samples: Samples,
    fold_positions: Sequence[Array],
    *,
    round_trip_cost: float,
    periods_per_year: float,
    side: int | Array = 1,
) -> Paths:
    """Daily returns and yearly Sharpe ratios of one strategy on every path.

    fold_positions: as `assemble`, positions in [-1, 1] on the label's side that each test sample takes at its label's
    entry and holds to its label's exit (0 for none, negative against that side): `(proba_N >= threshold)` for a
    long-only rule. round_trip_cost: of one unit of position, entry and exit together, as a fraction. side: of the
    labels, +1, -1 or 0 none, one or [N]. A trade earns position * side * (exp(side * ret) - 1) minus costs, since a
    label's log return `ret` is in its own direction: a short at 100 that ends at 80 earns 20 %, not 25 %.
    A trade is booked on the UTC day on which its label resolves, and uses one part in M of the capital, where M is the
    most labels ever open at once (over all symbols), so that exposure never exceeds the capital. Days
    without any outcome are left out. This simulates labels, not an account: the backtest does that.
    Raises as `assemble`, on positions beyond 1, on labels without a return, and on fewer than 20 days.
    """
    positions_PN = assemble(splitter, samples, fold_positions)
    if positions_PN.ndim != 2 or (np.abs(positions_PN) > 1).any():
        raise DataError(
            f"paths: positions {positions_PN.shape[1:]} up to {np.abs(positions_PN).max():g}; every sample "
            "needs one in [-1, 1]; scale them"
        )
    if not np.isfinite(samples.ret).all():
        raise DataError(
            f"paths: {int((~np.isfinite(samples.ret)).sum())} samples without a return; every sample needs "
            "one; drop unlabelled samples"
        )
    earned_PN = positions_PN * side * np.expm1(side * samples.ret) - np.abs(positions_PN) * round_trip_cost
    days, where = np.unique(session_dates(samples.table.time[samples.end]), return_inverse=True)
    if len(days) < MIN_DAYS:
        raise DataError(
            f"paths: outcomes on {len(days)} days; a Sharpe ratio of paths needs {MIN_DAYS}; take more data"
        )
    returns_DP = np.zeros((len(days), len(positions_PN)))
    np.add.at(returns_DP, where, earned_PN.T)
    returns_DP /= _most_open(samples)
    return Paths(days, returns_DP, _yearly_sharpe(returns_DP, periods_per_year), float(periods_per_year))


def _most_open(samples: Samples) -> int:
    """Most labels that are open at one moment, from decision bar to resolution."""
    _, decision, end = span_bars(samples)
    opened = np.bincount(decision, minlength=int(end.max()) + 2)
    closed = np.bincount(end + 1, minlength=int(end.max()) + 2)
    return int(np.cumsum(opened - closed).max())


def _yearly_sharpe(returns_DP: Array, periods_per_year: float) -> Array:
    moves = ~np.atleast_1d(is_flat(returns_DP))
    out = np.zeros(returns_DP.shape[1])
    if moves.any():
        out[moves] = sharpe_ratio(returns_DP[:, moves])
    return out * np.sqrt(periods_per_year)


def cpcv_paths(experiment: Experiment, prepared: Prepared, ledger: TrialLedger, source: Json, folder: Path) -> Json:
    """The report's section `paths`: the paths of combinatorial folds.

    `Paths.as_dict` with model, stands_in (for the primary), rule, n_fits, n_groups, n_test_groups. Every path is
    recorded in the ledger first. Raises as `path_returns` and as fits do.
    """
    splitter = path_folds(experiment)
    name, model = cheap_model(experiment)
    samples = prepared.samples
    folds = list(splitter.split(samples))
    positions = [_positions(experiment, model, samples, fold) for fold in counted("cpcv fits", folds)]
    paths = path_returns(
        splitter,
        samples,
        positions,
        round_trip_cost=experiment.costs.round_trip,
        periods_per_year=days_in_a_year(utc_series(np.unique(samples.table.time)), experiment.data.get("calendar")),
        side=_sides(experiment, samples),
    )
    _record_paths(paths, name, prepared, ledger, source, folder)
    LOG.info("cpcv: %d fits of %s, %d paths", len(positions), name, len(paths.sharpe_P))
    return paths.as_dict() | {
        "model": name,
        "stands_in": name != "primary",
        "rule": f"{_side_in_words(samples)} where the score is at least the {TOP:g} quantile of its own fold's "
        "validation scores",
        "n_fits": len(positions),
        "n_groups": splitter.n_groups,
        "n_test_groups": splitter.n_test_groups,
    }


def cheap_model(experiment: Experiment) -> tuple[str, Model]:
    """The primary where no part of it is a sequence model, else the logistic baseline.

    Its name comes first.
    """
    if not _holds_sequence(experiment.model):
        return "primary", experiment.model
    return "logistic", experiment.baselines.get("logistic") or LogisticRegression()


def _holds_sequence(part: object) -> bool:
    """Whether a model, or a model inside it, is a sequence model."""
    from tradsys.models.sequence import SequenceModel  # noqa: PLC0415 - brings torch

    if isinstance(part, SequenceModel):
        return True
    if isinstance(part, tuple | list):
        return any(_holds_sequence(item) for item in part)
    if isinstance(part, dict):
        return any(_holds_sequence(item) for item in part.values())
    if is_dataclass(part):
        return any(_holds_sequence(getattr(part, field.name)) for field in fields(part) if field.init)
    return False


def _positions(experiment: Experiment, model: Model, samples: Samples, fold: Fold) -> Array:
    """0 or 1 for each test sample of a fold, from a model fitted on the rest; 1 is a position on the label's side.

    Returns of labels are in their own direction, so a short counts as 1, too. A row with side 0 has no position.
    """
    done = uncalibrated_model(experiment, model).fit(samples.take(fold.train), samples.take(fold.valid))
    valid, test = (done.predict_proba(samples.table, samples.rows[part])[:, 1] for part in (fold.valid, fold.test))
    side = samples.table.side()
    wanted = np.ones(len(test), dtype=bool) if side is None else side[samples.rows[fold.test]] != 0
    return ((test >= np.quantile(valid, TOP)) & wanted).astype(np.float64)


def _sides(experiment: Experiment, samples: Samples) -> int | Array:
    """The side of each sample's label, one or [N]."""
    own = samples.table.side()
    return side_of_labels(experiment, None if own is None else own[samples.rows])


def _side_in_words(samples: Samples) -> str:
    """The side of a path's positions, as text."""
    return "long" if samples.table.side() is None else "on the bundle's own side, long or short,"


def _record_paths(paths: Paths, name: str, prepared: Prepared, ledger: TrialLedger, source: Json, folder: Path) -> None:
    samples = prepared.samples
    outcomes = samples.table.time[samples.end]
    for p in range(len(paths.sharpe_P)):
        entry = LedgerEntry(
            purpose="cpcv",
            subject=f"{name}, path {p + 1}",
            data_digest=prepared.data_digest,
            span_start=aware(outcomes.min()),
            span_end=aware(outcomes.max()),
            config_digest=source["config_digest"],
            run=str(folder),
            measure="return",
            periods_per_year=paths.periods_per_year,
            code_sha=source["code_sha"],
        )
        ledger.append(entry, paths.returns_DP[:, p])


MIN_DAYS = 20
