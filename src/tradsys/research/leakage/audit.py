"""Leakage audit of the complete chain: three checks of every part, one result each."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich import box
from rich.table import Table

from tradsys.core.errors import LeakageError, TradsysError
from tradsys.core.plain_data import Json
from tradsys.core.plurals import counted
from tradsys.core.runs import write_json
from tradsys.evidence.controls.causality import Finding
from tradsys.research.leakage.lookahead import Check, future_checks
from tradsys.research.leakage.serving_parity import past_checks, serving_checks
from tradsys.research.leakage.subject import QUESTIONS, AuditSettings, AuditSubject
from tradsys.research.leakage.train_test_isolation import sealed_checks
from tradsys.research.pipeline.requirements import check_stages
from tradsys.research.pipeline.settings import Experiment

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckResult:
    """Result of one check of one part. skipped: why it was not run, else empty."""

    part: str
    question: str
    finding: Finding | None
    skipped: str
    seconds: float

    @property
    def verdict(self) -> str:
        """The result in a word: `ok`, `LEAK` or `not checked`."""
        return "LEAK" if self.finding else "not checked" if self.skipped else "ok"


def audit(
    experiment: Experiment, settings: AuditSettings, folder: Path, config: Mapping[str, Any]
) -> list[CheckResult]:
    """Runs the checks in `settings` on a reduced copy of the experiment.

    They run in the order of the flow. Writes audit.json into `folder`. config: the resolved config, whose data part
    goes into
    the copy's bundle. Raises TradsysError for a part that the experiment lacks, and whatever the experiment itself
    would raise.
    """
    check_stages(experiment)
    subject = AuditSubject(experiment, settings, folder, config)
    results = list(run_checks(subject))
    write_json(folder / "audit.json", [_plain_result(a) for a in results])
    return results


def run_checks(s: AuditSubject) -> Iterator[CheckResult]:
    """Yields the results one by one.

    A LeakageError that tradsys itself raises is a finding, too.
    """
    checks = checks_of(s)
    wanted = s.settings.parts
    parts = {part for one in checks.values() for part in one}
    if unknown := [w for w in wanted or () if not any(_named(p, w) for p in parts)]:
        raise TradsysError(
            f"audit: unknown parts {unknown}; this experiment has {sorted(parts)}; set audit.parts to some of these"
        )
    for question in s.settings.questions or QUESTIONS:
        for part, one in checks[question].items():
            if wanted is None or any(_named(part, w) for w in wanted):
                yield _result(s, part, question, one)


def _named(part: str, wanted: str) -> bool:
    """Whether `wanted` selects the part: `auditor` selects the part and its subparts, such as `auditor scores`."""
    return part == wanted or part.startswith(f"{wanted} ")


def checks_of(s: AuditSubject) -> dict[str, dict[str, Check]]:
    """Every check by question and part."""
    return {"future": {**future_checks(s), **serving_checks()}, "past": past_checks(s), "sealed": sealed_checks(s)}


def _result(s: AuditSubject, part: str, question: str, one: Check) -> CheckResult:
    began = perf_counter()
    try:
        outcome = one(s)
    except LeakageError as error:
        outcome = Finding(part, question, f"tradsys refused: {error}", "spans", "all", float("inf"))
    finding = outcome if isinstance(outcome, Finding) else None
    skipped = outcome if isinstance(outcome, str) else ""
    seconds = perf_counter() - began
    answer = CheckResult(part, question, finding, skipped, seconds)
    LOG.info("%-37s %-7s %-9s %5.1f s", part, question, answer.verdict, seconds)
    return answer


def results_table(results: list[CheckResult]) -> Table:
    """Table of part, question, verdict and how.

    First offending column, row and size where one was found.
    """
    n_leaks, n_skipped = sum(a.finding is not None for a in results), sum(bool(a.skipped) for a in results)
    headline = f"{counted(len(results) - n_skipped, 'question')} checked" + (f", {n_skipped} not" if n_skipped else "")
    reported = "; ".join(f"{name}: {text}" for name, text in QUESTIONS.items())
    table = Table(
        title=f"Audit: {headline}, {counted(n_leaks, 'finding')}", title_justify="left", caption=reported,
        caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    place = ("column", "row", "size") if n_leaks else ()
    for column in ("part", "question", "verdict", *place, "how"):
        is_fixed = column == "part" and not n_leaks
        table.add_column(column, justify="right" if column == "size" else "left", no_wrap=is_fixed, overflow="fold")
    colours = {"ok": "green", "LEAK": "bold red", "not checked": "dim"}
    for a in results:
        f = a.finding
        where = (f.column, f.row, f"{f.size:.3g}", f.how) if f else (*([""] * len(place)), a.skipped)
        table.add_row(a.part, a.question, f"[{colours[a.verdict]}]{a.verdict}[/]", *where)
    return table


def _plain_result(answer: CheckResult) -> Json:
    finding = None if answer.finding is None else asdict(answer.finding)
    if finding is not None and finding["size"] == float("inf"):
        finding["size"] = None
    return {**asdict(answer), "finding": finding, "verdict": answer.verdict}
