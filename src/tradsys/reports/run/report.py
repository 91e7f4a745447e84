"""The content of report.json of a training run or a bundle backtest, as shown on its page."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from tradsys.core.errors import TradsysError
from tradsys.core.plain_data import Json

Section = Mapping[str, Any]
ALWAYS = ("synthetic",)  # written even where None, so that real data are stated explicitly


@dataclass(frozen=True)
class RunReport:
    """One field per part of the page; None where the run has no such part.

    run: name of its folder. synthetic: description of a synthetic market, None on real data. verdict:
    `Verdict.as_dict`. strategies: name, settings, performance and verdict of each; benchmark: the same for the
    benchmark. equity: daily curves on one list of dates. ledger: trials of the ledger and their deflation of a Sharpe
    ratio. costs, label: as configured. provenance: code, config and data. skill: of a backtest; models: of a training
    run, the primary model first. folds: spans and counts of the parts. tear_sheet: records over time, trades and
    prices. timings: seconds by stage. The others are sections of `research.sections`.
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

    def to_json(self) -> Json:
        """The existing parts by name, as in report.json."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in plain.items() if value is not None or name in ALWAYS}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: str, fix: str) -> Self:
        """The report from a dict of `to_json`; parts of later versions are left out.

        where: names the file. fix: the next step. Raises TradsysError where a part that every report has is missing.
        """
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        if lacking := [name for name in needed if plain.get(name) is None]:
            raise TradsysError(f"{where} is damaged: it lacks {', '.join(lacking)}, which every report has; {fix}")
        return cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})

    def summary(self) -> Json:
        """The content of metrics.json.

        The verdict, and the figures of every model and strategy.
        """
        rows = self.strategies
        out: Json = {"verdict": self.verdict}
        if self.skill is not None:
            out["skill"] = self.skill
        if self.models is not None:
            out["models"] = {row["name"]: row["metrics"] for row in self.models}
        return out | {"strategies": {row["name"]: row["performance"] | {"verdict": row["verdict"]} for row in rows}}
