"""What a run's page shows, whether it was trained here or a bundle was backtested: report.json in one shape."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from tradsys.core.errors import TradsysError

Section = Mapping[str, Any]
ALWAYS = ("synthetic",)  # written where None, too: a reader must not have to guess


@dataclass(frozen=True)
class RunReport:
    """One field a part of the page; None where the run has no such part.

    run: name of its folder. synthetic: what the made-up market is, None on real data. verdict: `Verdict.as_dict`.
    strategies: name, settings, performance and verdict of each; benchmark: the same of what is held beside. equity:
    daily curves on one list of dates. ledger: what deflates a Sharpe, with its trials. costs, label: as configured.
    provenance: code, config and data. skill: of a backtest; models: of a training run, the primary model first.
    folds: spans and counts of the parts. tear_sheet:
    records over time, trades and prices. timings: seconds by stage. The others are sections of `research.sections`.
    """

    run: str
    question: str
    verdict: Section
    strategies: Sequence[Section]
    benchmark: Section
    equity: Section
    ledger: Section
    costs: Section
    label: Section
    provenance: Section
    synthetic: str | None = None
    skill: Section | None = None
    models: Sequence[Section] | None = None
    reliability: Section | None = None
    reliability_overlap: float | None = None
    auditor: Section | None = None
    importance: Section | None = None
    drift: Section | None = None
    folds: Sequence[Section] | None = None
    regime: Section | None = None
    audit_value: Section | None = None
    hindsight: Section | None = None
    embedding: Section | None = None
    ensemble: Section | None = None
    paths: Section | None = None
    tear_sheet: Section | None = None
    timings: Section | None = None

    def to_json(self) -> dict[str, Any]:
        """The parts there are, by name; what pages read and report.json holds."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in plain.items() if value is not None or name in ALWAYS}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str, fix: str) -> Self:
        """The report that `to_json` gave; parts of later versions are left out.

        where: names the file. fix: the next step. Raises TradsysError where a part that every report has is missing.
        """
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        if lacking := [name for name in needed if plain.get(name) is None]:
            raise TradsysError(f"{where} is damaged: it lacks {', '.join(lacking)}, which every report has; {fix}")
        return cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})

    def summary(self) -> dict[str, Any]:
        """What metrics.json holds: the verdict, and the figures of every model and strategy."""
        rows = self.strategies
        out: dict[str, Any] = {"verdict": self.verdict}
        if self.skill is not None:
            out["skill"] = self.skill
        if self.models is not None:
            out["models"] = {row["name"]: row["metrics"] for row in self.models}
        return out | {"strategies": {row["name"]: row["performance"] | {"verdict": row["verdict"]} for row in rows}}
