"""A bundle met again: its strategies on its own test span, or on data it never saw."""

from datetime import datetime
from pathlib import Path
from typing import Any

from tradsys.core.errors import DataError
from tradsys.core.headline import headline_skill
from tradsys.core.runs import masked, write_json, written_atomically
from tradsys.evidence.verdict import judge_run
from tradsys.market.bars import content_digest
from tradsys.reports.run.page import write_report
from tradsys.research.pipeline.backtesting import backtest, bounds
from tradsys.research.pipeline.provenance import provenance
from tradsys.research.pipeline.trial_ledger import TrialLedger
from tradsys.serving.bundle import Bundle

SPANS = ("test", "later")


def retest(bundle: Bundle, source: Any, parts: dict[str, Any], config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Backtests profiles on decisions of the bundle's test span (span=test) or after its validation (span=later).

    Writes metrics, trades and a report into `folder`; returns the report. Raises DataError where the bars of the
    bundle's own source are no longer the ones it was judged on.
    """
    if config["span"] not in SPANS:
        raise DataError(f"backtest: span={config['span']!r}; one of {SPANS}; choose one")
    bars = source.bars()
    digest, own = content_digest(bars), bundle.card["data"]["digest"]
    if config["data_choice"] is None and digest != own:
        raise DataError(
            f"backtest: the bars now hash to {digest[:12]}, the bundle was judged on {own[:12]}; the store "
            "changed; name the data to test on with data=..."
        )
    start, end = (datetime.fromisoformat(t) for t in bundle.card["span"]["test"])
    until = end if config["span"] == "test" else bars["time"].max()
    came_from = provenance(config, {**source.describe(), "digest": digest})
    skill = headline_skill(bundle.card.get("metrics", {}))
    tested = backtest(
        bundle,
        bars,
        parts["strategy"],
        parts["costs"],
        parts["evaluation"],
        ledger=TrialLedger(config["paths"]["ledger"], config["paths"]["runs"]),
        source=came_from,
        run=str(folder),
        skill_low=skill["low"],
        since=start,
        until=until,
        seed=0,
    )
    data = came_from["data"]
    report = {
        "run": folder.name,
        "question": config["question"],
        "synthetic": data.get("note") if data["synthetic"] else None,
        "verdict": judge_run(bounds(skill), tested.verdicts).as_dict(),
        **tested.as_dict(),
        "label": bundle.card["label"],
        "provenance": came_from
        | {"config": masked(config), "bundle": {**bundle.card["span"], "path": str(bundle.folder)}},
    }
    with written_atomically(folder / "trades.parquet") as draft:
        tested.trades.write_parquet(draft)
    strategies = {row["name"]: row["performance"] | {"verdict": row["verdict"]} for row in report["strategies"]}
    write_json(folder / "metrics.json", {"verdict": report["verdict"], "strategies": strategies})
    write_json(folder / "report.json", report)
    write_report(report, folder / "report.html")
    return report
