"""A study in words: its trials, the chosen trial and why, the gain of a refined search."""

from collections.abc import Mapping
from typing import Any

from tradsys.reports.wording import UNKNOWN, counted, number, percent

HEADINGS = (
    "trial",
    "lower bound",
    "mean skill",
    "sd folds",
    "sd seeds",
    "failed",
    "seconds",
    "peak MB",
    "weights",
    "resumed",
)


MOST_NAMED = 3  # parameters of the line on importance


def heading(report: Mapping[str, Any]) -> str:
    """Title of the study: trials, sampler and machine hours."""
    states = {s: sum(t["state"] == s for t in report["trials"]) for s in ("complete", "pruned")}
    return (
        f"study {report['study']}: {counted(states['complete'], 'trial')} complete, "
        f"{states['pruned']} pruned; {report['sampler']}, {number(report['machine_hours'], 2)} machine hours"
    )


def ranked(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Finished trials, the highest lower bound first."""
    done = [t for t in report["trials"] if t["state"] == "complete"]
    return sorted(done, key=lambda t: (-t["lower_bound"], t["place"]))


def trial_cells(trial: Mapping[str, Any]) -> tuple[str, ...]:
    """Cells under HEADINGS.

    Skills are shares of the best constant's log-loss that the model takes away.
    """
    return (
        f"{trial['place']}{' *' if trial['in_front'] else ''}",
        number(trial["lower_bound"], 4),
        number(trial["mean_skill"], 4),
        number(trial["spread_folds"], 4),
        number(trial["spread_seeds"], 4),
        percent(trial["failed_share"], 0),
        number(trial["seconds"], 1),
        number(trial["peak_mb"], 0),
        UNKNOWN if trial["n_parameters"] is None else f"{trial['n_parameters']:,}",
        str(trial["checkpoints_used"]),
    )


def settings_of(trial: Mapping[str, Any]) -> str:
    """A trial's parameters on one line."""
    return ", ".join(f"{path}={_short(value)}" for path, value in sorted(trial["params"].items()))


def conclusions(report: Mapping[str, Any]) -> list[str]:
    """The conclusions of the study in a few lines."""
    best = next((t for t in report["trials"] if t["place"] == report["best"] and t["state"] == "complete"), None)
    if best is None:
        return ["pick     none: no trial fitted all its folds"]
    level = f"{100 * report['confidence']:g} %"
    lines = [
        f"pick     trial {best['place']} by its lower bound ({level}): {settings_of(best)}",
        "         its skill was chosen as the best of many on these folds, so expect less of it on others; the test "
        "span is unread",
    ]
    highest = max((t for t in ranked(report)), key=lambda t: t["mean_skill"])
    if highest["place"] != best["place"]:
        lines.append(
            f"         trial {highest['place']} has a higher mean, {number(highest['mean_skill'], 4)}, but a lower "
            "bound that is lower"
        )
    if best["lower_bound"] <= 0:
        lines.append("         the bound does not exceed 0: no trial reliably beats the base rate")
    lines += [*importance_lines(report), overfitting_line(report["overfitting"])]
    refused = [t for t in report["trials"] if t["refused"]]
    if refused:
        lines.append(f"refused  {counted(len(refused), 'impossible combination')}, such as: {refused[0]['refused']}")
    if report["n_retried"]:
        lines.append(f"retried  {counted(report['n_retried'], 'attempt')} whose worker died")
    return [*lines, *rematch_lines(report)]


def importance_lines(report: Mapping[str, Any]) -> list[str]:
    """The parameters that matter most by the first method, each with its interval.

    Nothing without intervals.
    """
    for method, spans in report.get("importance_intervals", {}).items():
        found = report["importances"][method]
        first = sorted(spans, key=lambda name: -found[name])[:MOST_NAMED]
        named = ", ".join(
            f"{name} {number(found[name], 2)} [{number(spans[name][0], 2)}, {number(spans[name][1], 2)}]"
            for name in first
        )
        return [f"matters  {named} ({method}, 90 % over resamples of the trials)"]
    return []


def overfitting_line(found: Mapping[str, Any]) -> str:
    """The probability of overfitting (PBO) of the chosen trial, or why it is unknown."""
    if found["pbo"] is None:
        return f"overfit  no probability of overfitting: {found['reason']}"
    return (
        f"overfit  PBO {number(found['pbo'], 2)}: the best trial of one half of the time ends in the lower half of "
        f"all {found['n_trials']} in the other, in that share of {found['n_splits']:,} splits; luck alone gives 0.5"
    )


def rematch_lines(report: Mapping[str, Any]) -> list[str]:
    """Comparison of the refined search's best trial with its parent's, on new seeds."""
    rematch = report["rematch"]
    if rematch is None:
        return []
    gain = rematch["gain"]
    span = UNKNOWN if gain["low"] is None else f"[{number(gain['low'], 4)}, {number(gain['high'], 4)}]"
    verdict = "exceeds the noise" if gain["exceeds_noise"] else "does not exceed the noise"
    return [
        f"zoom     gain over the best of {rematch['parent']}: {number(gain['value'], 4)} {span} on {gain['n_folds']} "
        f"paired folds, seeds {rematch['seeds']}: {verdict}"
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
