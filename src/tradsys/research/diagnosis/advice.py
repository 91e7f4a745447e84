"""Conclusions of a diagnosis as sentences; each is computed from its numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Line = tuple[str, str]  # stop | warn | note, and the sentence
FEW_EPISODES = 100
RARE, COMMON = 0.02, 0.5
CLUSTERED = 0.1  # half of all events on fewer than this share of the dates
ONE_SYMBOL = 0.2  # of all events, and twice its share of the rows
WICKS = 0.25  # of the events
CHANGED = 1.5  # ratio of event rates between training and validation


def advice(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Sentences with their level, failures first; never empty."""
    rules: tuple[Callable[[Mapping[str, Any]], Iterator[Line]], ...] = (
        _coverage, _survivors, _events, _wicks, _clusters, _rates, _correlations, _compression, _fit, _intervals,
    )  # fmt: skip
    lines = [line for rule in rules for line in rule(report)]
    order = {"stop": 0, "warn": 1, "note": 2}
    return [{"level": level, "text": text} for level, text in sorted(lines, key=lambda line: order[line[0]])]


def _coverage(report: Mapping[str, Any]) -> Iterator[Line]:
    found = report["coverage"]["findings"]
    for finding in found:
        yield finding["outcome"], f"{finding['feature']}: {finding['text']}."
    if not found:
        known = zip(report["coverage"]["names"], report["coverage"]["overall"], strict=True)
        name, least = min(((n, share) for n, share in known if share is not None), key=lambda pair: pair[1])
        least_known = f"the least covered, {name}, has {least:.1%} of its values past its warm-up"
        yield "note", f"No feature is late, dropped or frozen; {least_known}."


def _survivors(report: Mapping[str, Any]) -> Iterator[Line]:
    if report["survivors_only"]:
        yield (
            "warn",
            (
                "The data hold survivors only: delisted names are missing, so every rise is overstated and every fall "
                "is missed. No rate or lift here holds for a market with delistings."
            ),
        )


def _events(report: Mapping[str, Any]) -> Iterator[Line]:
    balance = report["balance"]
    rate, episodes = balance["rate"], balance["n_episodes"]
    text = f"{balance['n_events']:,} event rows ({rate:.1%}) are {episodes:,} episodes that do not overlap"
    if episodes < FEW_EPISODES:
        yield "warn", f"{text}: too few to tell a model from luck. Lower the label's threshold, or load more history."
    else:
        yield "note", f"{text}; only the episodes count as evidence."
    if rate < RARE:
        yield "note", "Events are rare: weigh the classes, and use precision at k and PR-AUC, not accuracy."
    elif rate > COMMON:
        yield "note", f"Events are the rule ({rate:.0%}): a model must beat that rate to be useful."


def _wicks(report: Mapping[str, Any]) -> Iterator[Line]:
    n_wicks, n_events = report["balance"]["n_wicks"], report["balance"]["n_events"]
    if n_wicks:
        share = n_wicks / n_events
        text = f"In {n_wicks:,} of {n_events:,} events ({share:.0%}) a high touched the rise and no close reached it"
        yield ("warn" if share > WICKS else "note"), f"{text}: an order at a wick may not fill."


def _clusters(report: Mapping[str, Any]) -> Iterator[Line]:
    balance = report["balance"]
    share = balance["times_with_half"] / max(1, balance["n_times"])
    if share < CLUSTERED:
        yield (
            "warn",
            (
                f"Half of all events were decided on {share:.1%} of the dates: the market explodes together. Rows of "
                "one date are one piece of evidence; trust the block intervals, not the row count."
            ),
        )
    if balance["by_symbol"] and balance["n_events"]:
        top = balance["by_symbol"][0]
        part = top["events"] / balance["n_events"]
        if part > max(ONE_SYMBOL, 2 * top["n"] / balance["n"]):
            yield "warn", f"{top['symbol']} alone gives {part:.0%} of the events: look at what happened there first."


def _rates(report: Mapping[str, Any]) -> Iterator[Line]:
    train, valid = report["balance"]["train_rate"], report["balance"]["valid_rate"]
    low, high = sorted((train, valid))
    if low == 0 or high / low > CHANGED:
        yield (
            "warn",
            (
                f"Events make {train:.1%} of training and {valid:.1%} of validation rows: the calibrated level will "
                "not hold; rank by the score, and use the probability with care."
            ),
        )


def _correlations(report: Mapping[str, Any]) -> Iterator[Line]:
    known = [row for row in report["correlation"] if row["p_holm"] is not None]
    held = [row for row in known if row["p_holm"] + report["confidence"] < 1]
    if not known:
        yield "warn", "No correlation has an interval: the record holds too few blocks of the label's horizon."
    elif held:
        names = ", ".join(f"{row['name']} ({row['value']:+.2f})" for row in held[:5])
        yield "note", f"{len(held)} of {len(known)} columns correlate with the label beyond chance (Holm): {names}."
    else:
        alone = sum(row["low"] > 0 or row["high"] < 0 for row in known)
        yield (
            "warn",
            (
                f"No column correlates with the label beyond chance when {len(known)} are tested at once; {alone} "
                "would alone. Do not choose features by this table."
            ),
        )


def _compression(report: Mapping[str, Any]) -> Iterator[Line]:
    section = report["compression"]
    if section is None:
        yield "note", "No compression column is in this feature set, so its lift was not measured."
        return
    row = section["lifts"][0]
    lift, within = row["lift"], row["within_time"]
    if lift["low"] is None:
        yield "warn", f"The lift of compression is unknown: {lift['reason']}."
        return
    sentence = f"Compressed rows are events {_bounds(lift)} times as often as all"
    left = _within_dates(within)
    if lift["low"] > 1:
        yield "note", f"{sentence}.{left}"
    elif lift["high"] < 1:
        yield "warn", f"{sentence}: quiet rows explode less often, not more. The premise fails on these data.{left}"
    else:
        doubt = "an interval around 1, so these data do not show that compression precedes explosion"
        yield "warn", f"{sentence}: {doubt}.{left}"


def _within_dates(within: Mapping[str, Any]) -> str:
    """A sentence on the lift against rows of the same dates, with its interval."""
    if within["low"] is None:
        return ""
    side = "all above 1" if within["low"] > 1 else "all below 1" if within["high"] < 1 else "around 1"
    return f" Compared with the other rows of their own dates: {_bounds(within)} times, {side}."


def _fit(report: Mapping[str, Any]) -> Iterator[Line]:
    evaluated = report.get("judged")
    if not evaluated:
        return
    for row in evaluated["at_k"]:
        lift = row["lift"]
        if row["ranking"] != evaluated["model"] or lift["value"] is None:
            continue
        sentence = (
            f"The model's {row['k']} highest scores of a date are events {_bounds(lift)} times as often as at random"
        )
        if lift["low"] is None:
            yield "warn", f"{sentence}; there is no interval: {lift['reason']}."
        else:
            yield ("note", f"{sentence}.") if lift["low"] > 1 else ("warn", f"{sentence}: that may be luck.")


def _intervals(report: Mapping[str, Any]) -> Iterator[Line]:
    found = (report.get("judged") or {}).get("conformal")
    if found and found["coverage"]["high"] is not None and found["coverage"]["high"] < found["wanted"]:
        yield (
            "warn",
            (
                f"Intervals of the expected move promised {found['wanted']:.0%} and covered "
                f"{_bounds(found['coverage'])} of the test moves: too narrow for later data."
            ),
        )


def _bounds(estimate: Mapping[str, Any]) -> str:
    """`2.68 [0.83, 4.45]`, the bounds where they are known."""
    bounds = "" if estimate["low"] is None else f" [{estimate['low']:.2f}, {estimate['high']:.2f}]"
    return f"{estimate['value']:.2f}{bounds}"
