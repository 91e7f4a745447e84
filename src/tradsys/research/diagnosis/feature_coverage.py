"""Feature coverage by date, and the three ways in which a column misleads: late, dropped, frozen.

A feature is expected to have a value on every bar past its warm-up; other NaN are missing values. A column that was
computed for the last date only, such as from a snapshot, trains nothing and looks perfect in production: it must fail.
A date is a UTC day. Legend: R rows, F features, T dates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np

from tradsys.core.plain_data import Json
from tradsys.core.tables import Array, FeatureTable
from tradsys.features.cross_section import RANK
from tradsys.features.feature_set import FeatureSet
from tradsys.market.calendars import session_dates

FROZEN = "frozen until the end"


@dataclass(frozen=True)
class CoverageRules:
    """Rules for late, dropped and frozen features.

    least: a date is covered where this share of expected values is present. late_stop, late_warn: share of the dates
    before the first covered one from which the feature fails or warns. fall: how far coverage must fall below the
    median of the `memory_dates` before to be a drop. drop_dates: a drop this long fails, as does one that lasts to the
    last date; a shorter one is reported. recent_dates: a column that holds one value on every date but these is frozen.
    """

    least: float = 0.5
    late_stop: float = 0.9
    late_warn: float = 0.1
    fall: float = 0.5
    drop_dates: int = 3
    memory_dates: int = 20
    recent_dates: int = 5


@dataclass(frozen=True)
class CoverageFinding:
    """One problem of one feature. outcome: stop or warn. date: where it begins, ISO."""

    feature: str
    kind: str
    outcome: str
    date: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """The fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class DateCoverage:
    """Share of expected values that are present.

    times datetime64[D] [T]. share [T, F], overall [F] over all dates: NaN where no value is expected yet.
    """

    names: tuple[str, ...]
    times: Array
    share: Array
    overall: Array
    findings: tuple[CoverageFinding, ...]

    @property
    def stops(self) -> tuple[CoverageFinding, ...]:
        """Findings that fail the diagnosis."""
        return tuple(finding for finding in self.findings if finding.outcome == "stop")


def date_coverage(
    table: FeatureTable, warmups: Mapping[str, int], members: Array | None, rules: CoverageRules
) -> DateCoverage:
    """Coverage of every feature on every date, with its problems, the failures first.

    warmups: rows of a segment before a feature is expected to have a value, by name. members: bool [R], rows that
    count.
    """
    times, code = np.unique(session_dates(table.time), return_inverse=True)
    counted = np.ones(len(table), dtype=bool) if members is None else members
    position = _segment_position(table.segment)
    n_times, n_names = len(times), len(table.names)
    owed_TF, known_TF = np.empty((n_times, n_names)), np.empty((n_times, n_names))
    findings: list[CoverageFinding] = []
    for k, name in enumerate(table.names):
        owed = counted & (position >= warmups[name])
        known = owed & np.isfinite(table.values[:, k])
        owed_TF[:, k] = np.bincount(code[owed], minlength=n_times)
        known_TF[:, k] = np.bincount(code[known], minlength=n_times)
        share = _known_share(known_TF[:, k], owed_TF[:, k])
        findings += _findings(name, times, share, rules)
        findings += _frozen(name, times, code[known], table.values[known, k], rules)
    ordered = sorted(findings, key=lambda f: (f.outcome != "stop", f.feature))
    overall = _known_share(known_TF.sum(axis=0), owed_TF.sum(axis=0))
    return DateCoverage(table.names, times, _known_share(known_TF, owed_TF), overall, tuple(ordered))


def warmups_of(features: FeatureSet) -> dict[str, int]:
    """Rows before each column is expected to have a value.

    A rank's are those of its feature.
    """
    own = {feature.name: feature.warmup for feature in features.features}
    return {name: own[name if name in own else name.removesuffix(RANK)] for name in features.names}


class CoverageSection(TypedDict):
    """Cells of the heat map [feature, date]; None where no value is expected.

    recent: the last dates, one by one.
    """

    names: list[str]
    overall: list[float | None]
    dates: list[str]
    share: list[list[float | None]]
    recent_dates: list[str]
    recent_share: list[list[float | None]]
    n_dates: int
    findings: list[Json]


def coverage_section(found: DateCoverage, most_columns: int, recent_dates: int) -> CoverageSection:
    """The heat map's cells, ready for JSON.

    The complete record in at most `most_columns` runs of dates, each at its worst date, and the last dates one by one;
    features that fail first. Dates on which a column was frozen count as missing.
    """
    share_TF = _shown_coverage(found)
    failing = [finding.feature for finding in found.findings]
    rank = {name: k for k, name in enumerate(dict.fromkeys(failing))}
    order = sorted(range(len(found.names)), key=lambda k: rank.get(found.names[k], len(rank) + k))
    runs = np.array_split(np.arange(len(found.times)), min(most_columns, len(found.times)))
    recent = np.arange(len(found.times))[-recent_dates:]
    return {
        "names": [found.names[k] for k in order],
        "overall": _listed(found.overall[order]),
        "dates": [_day(found.times[run[0]]) for run in runs],
        "share": [_listed(np.array([_worst(share_TF[run, k]) for run in runs])) for k in order],
        "recent_dates": [_day(found.times[t]) for t in recent],
        "recent_share": [_listed(share_TF[recent, k]) for k in order],
        "n_dates": len(found.times),
        "findings": [finding.as_dict() for finding in found.findings],
    }


def _shown_coverage(found: DateCoverage) -> Array:
    share_TF = found.share.copy()
    for finding in found.findings:
        if finding.kind == FROZEN:
            early = found.times < np.datetime64(finding.date)
            column = found.names.index(finding.feature)
            share_TF[early & np.isfinite(share_TF[:, column]), column] = 0.0
    return share_TF


def _findings(name: str, times: Array, share_T: Array, rules: CoverageRules) -> Iterator[CoverageFinding]:
    owed = np.flatnonzero(np.isfinite(share_T))
    if not len(owed):
        first = _day(times[0])
        yield CoverageFinding(
            name, "never owed", "warn", first, "no segment is longer than its warm-up, so it never has a value"
        )
        return
    share = share_T[owed]
    covered = share >= rules.least
    if not covered.any():
        text = f"on none of {len(owed)} dates are {rules.least:.0%} of the values there"
        yield CoverageFinding(name, "never known", "stop", _day(times[owed[0]]), text)
        return
    start = int(covered.argmax())
    absent, begins = start / len(owed), _day(times[owed[start]])
    if absent >= rules.late_stop:
        text = f"present from {begins} on only: missing on the {start} dates before, {absent:.1%} of the record"
        yield CoverageFinding(name, "last dates only", "stop", begins, text)
    elif absent >= rules.late_warn:
        text = f"present from {begins} on: missing on the {start} dates before, {absent:.1%} of the record"
        yield CoverageFinding(name, "starts late", "warn", begins, text)
    yield from _drops(name, times[owed[start:]], share[start:], rules)


def _drops(name: str, times: Array, share: Array, rules: CoverageRules) -> Iterator[CoverageFinding]:
    """The worst drop of a feature, and the number of drops."""
    runs = list(_falls(share, rules))
    if not runs:
        return
    last = len(share) - 1
    lasting = [(a, b) for a, b in runs if b - a + 1 >= rules.drop_dates or b == last]
    start, end = max(lasting or runs, key=lambda run: run[1] - run[0])
    until = "to the last date" if end == last else f"to {_day(times[end])}"
    before = float(np.median(share[max(0, start - rules.memory_dates) : start]))
    more = f"; {len(runs)} drops in all" if len(runs) > 1 else ""
    text = (
        f"coverage falls from {before:.0%} to {share[start : end + 1].min():.0%} on {_day(times[start])} {until} "
        f"({end - start + 1} dates){more}"
    )
    yield CoverageFinding(name, "sudden drop", "stop" if lasting else "warn", _day(times[start]), text)


def _falls(share: Array, rules: CoverageRules) -> Iterator[tuple[int, int]]:
    """First and last position of every run of dates that lies `fall` below the median before it.

    The median before the run is kept while it lasts, or a lasting drop would soon count as normal.
    """
    if np.ptp(share) < rules.fall:
        return
    k = 1
    while k < len(share):
        before = float(np.median(share[max(0, k - rules.memory_dates) : k]))
        if before - share[k] < rules.fall:
            k += 1
            continue
        below = share[k:] <= before - rules.fall
        n = len(below) if below.all() else int(below.argmin())
        yield k, k + n - 1
        k += n + 1


def _frozen(name: str, times: Array, code: Array, values: Array, rules: CoverageRules) -> Iterator[CoverageFinding]:
    """A column filled with one value: always, or until the last dates."""
    early = code < len(times) - rules.recent_dates
    if len(values) < 2 or not early.any():
        return
    if np.ptp(values) == 0:
        text = f"always {values[0]:g}; a column that never changes carries no information"
        yield CoverageFinding(name, "constant", "warn", _day(times[0]), text)
    elif np.ptp(values[early]) == 0:
        changed = values != values[early][0]
        begins = _day(times[code[changed].min()])
        text = f"{values[early][0]:g} on every date before {begins}: filled with one value, computed for the end only"
        yield CoverageFinding(name, FROZEN, "stop", begins, text)


def _known_share(known: Array, owed: Array) -> Array:
    return np.divide(known, owed, out=np.full(np.shape(owed), np.nan), where=owed > 0)


def _worst(share: Array) -> float:
    """The lowest share of a run of dates, NaN where nothing is expected: a mean would hide one empty date."""
    known = share[np.isfinite(share)]
    return float(known.min()) if len(known) else np.nan


def _segment_position(segment: Array) -> Array:
    """0-based position [R] of each row in its segment."""
    rows = np.arange(len(segment))
    first = np.ones(len(segment), dtype=bool)
    first[1:] = segment[1:] != segment[:-1]
    return rows - np.maximum.accumulate(np.where(first, rows, 0))


def _listed(values: Array) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in values]


def _day(time: np.datetime64) -> str:
    return str(time.astype("datetime64[D]"))
