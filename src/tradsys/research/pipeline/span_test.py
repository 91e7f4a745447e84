"""The joint test of strategies on a span, with the ledger's earlier trials as batches in order."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isclose

import numpy as np

from tradsys.core.tables import Array
from tradsys.evidence.joint_test import IDLE, Batch, JointTest, error_budget, joint_test
from tradsys.evidence.sharpe import is_flat
from tradsys.research.pipeline.ledger_database import LedgerRow
from tradsys.research.pipeline.trial_ledger import Trial, TrialLedger

# purposes of ledger entries whose series get a verdict; others of the same run come after them
CHOSEN = "chosen strategy on test"
STRATEGY = "strategy on test"
_RANK = {CHOSEN: 0, STRATEGY: 1}
_OTHERS = 2


def joint_tests_on_span(
    ledger: TrialLedger,
    data_digest: str,
    span: tuple[datetime, datetime],
    returns: Mapping[str, Array],
    tested: Mapping[str, Array],
    *,
    min_block: float = 1.0,
    seed: int = 0,
) -> dict[str, JointTest]:
    """The joint test of each strategy among all trials of this span.

    By strategy name; the trials are those that the ledger holds. returns: by name, the series [T] that were recorded.
    tested: the series whose mean is tested, such as the returns beyond passive holding. A series counts where it was
    first recorded: a repeated run spends nothing twice, and a run that is resumed with other settings is a later try.
    Earlier trials over other periods count as batches, but are left out of the draws, which costs only power.
    """
    position = {digest: (number, trial) for number, group in enumerate(_groups(ledger, data_digest, span), 1)
                for digest, trial in group.items()}  # fmt: skip
    # a strategy that never traded is no trial: it spends nothing and is not tested
    idle = {name: JointTest(1, 1, error_budget(1), reason=IDLE) for name, series in returns.items() if is_flat(series)}
    own = {name: _series_digest(series) for name, series in returns.items() if name not in idle}
    if not own:
        return idle
    of_digest = {digest: tested[name] for name, digest in own.items()}
    last = max(position[digest][0] for digest in own.values())
    n_times = len(next(iter(tested.values())))
    sample = position[next(iter(own.values()))][1]
    columns: dict[int, list[tuple[str, Array]]] = {}
    for digest, (number, trial) in position.items():
        if number <= last and (digest in of_digest or _same_periods(trial, sample, n_times)):
            columns.setdefault(number, []).append((digest, of_digest.get(digest, trial.returns)))
    numbers = sorted(columns)
    batches = [Batch(n, np.column_stack([series for _, series in columns[n]])) for n in numbers]
    results = joint_test(batches, min_block=min_block, seed=seed)
    found = {digest: result for n, batch in zip(numbers, results, strict=True)
             for (digest, _), result in zip(columns[n], batch, strict=True)}  # fmt: skip
    return idle | {name: found[digest] for name, digest in own.items()}


def joint_tests_alone(tested: Mapping[str, Array], *, min_block: float = 1.0, seed: int = 0) -> dict[str, JointTest]:
    """The joint test of strategies without a ledger, as one first batch.

    All cover the same periods.
    """
    results = joint_test([Batch(1, np.column_stack(list(tested.values())))], min_block=min_block, seed=seed)[0]
    return dict(zip(tested, results, strict=True))


def _groups(ledger: TrialLedger, data_digest: str, span: tuple[datetime, datetime]) -> Sequence[dict[str, Trial]]:
    """Distinct series by batch: evaluations by their first trial; in each the chosen strategy, the others, the rest."""
    rows = ledger.entries()
    purposes, evaluations = {row["id"]: row["purpose"] for row in rows}, _evaluations(rows)
    order: dict[int, int] = {}
    groups: dict[tuple[int, int], dict[str, Trial]] = {}
    for trial in ledger.trials(data_digest, *span):
        number = order.setdefault(evaluations[trial.id], len(order))
        key = (number, _RANK.get(purposes[trial.id], _OTHERS))
        groups.setdefault(key, {})[trial.series_digest] = trial
    return [groups[key] for key in sorted(groups)]


def _evaluations(rows: Sequence[LedgerRow]) -> dict[int, int]:
    """By row of returns, a number of its evaluation.

    A folder is evaluated again where it is resumed with other settings or code, or where a name has another series:
    its later results were not tried together with its earlier ones.
    """
    latest: dict[str, tuple[int, tuple[str, str], set[str]]] = {}
    found: dict[int, int] = {}
    for row in (row for row in rows if row["measure"] == "return"):
        made_by = (row["config_digest"], row["code_sha"])
        number, known, names = latest.get(row["run"], (row["id"], made_by, set()))
        if made_by != known or row["subject"] in names:
            number, names = row["id"], set()
        latest[row["run"]] = (number, made_by, names | {row["subject"]})
        found[row["id"]] = number
    return found


def _same_periods(trial: Trial, other: Trial, n_times: int) -> bool:
    """Whether two trials cover the same days: one span and one length; rates may differ by the count of sessions."""
    same = (trial.span_start, trial.span_end) == (other.span_start, other.span_end)
    return (
        same and len(trial.returns) == n_times and isclose(trial.periods_per_year, other.periods_per_year, rel_tol=0.05)
    )


def _series_digest(series: Array) -> str:
    """The ledger's own name of a series."""
    return hashlib.sha256(np.ascontiguousarray(series, dtype="<f8").tobytes()).hexdigest()
