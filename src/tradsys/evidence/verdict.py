"""Verdict of a strategy and of a run: edge, no edge, or not enough evidence.

What decides is money: whether a strategy's returns after costs exceed what luck gives the best of all strategies tried
on these data (`joint_test`). The model's skill can explain and deny but is no veto: a forecast of volatility has skill
and earns nothing, and a strategy that earns has its own evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from scipy import special

from tradsys.core.plain_data import Json
from tradsys.core.plurals import counted
from tradsys.evidence.joint_test import JointTest
from tradsys.evidence.performance import DAYS_PER_YEAR
from tradsys.evidence.sequential import ExpectedRecord, bars_to_confirm, live_record
from tradsys.evidence.sharpe import MIN_TRADES

Kind = Literal["edge", "no edge", "not enough evidence"]
# above this p-value the returns suggest nothing, and a model without skill decides
SUGGESTIVE = 0.2
UNTRADED = "no strategy was evaluated: a forecast alone earns nothing, so skill alone is no edge"


class VerdictRow(TypedDict):
    """`Verdict` as reports hold it.

    test: of `JointTest`; live: of `sequential.live_record`.
    """

    kind: str
    reasons: list[str]
    needs: str | None
    test: Json | None
    live: ExpectedRecord | None


@dataclass(frozen=True)
class Verdict:
    """The verdict with its reasons.

    reasons: the first states what decided, in one sentence; others add context. needs: what would be needed to
    know more, None where nothing would change it. test: the test of the returns, None where they were not tested.
    live: expected bounds of a live record (`sequential.live_record`), None where there are none.
    """

    kind: Kind
    reasons: tuple[str, ...]
    needs: str | None = None
    test: JointTest | None = None
    live: ExpectedRecord | None = None

    def as_dict(self) -> VerdictRow:
        """kind, reasons (a list), needs, test and live (dicts or None), ready for JSON."""
        return {
            "kind": self.kind,
            "reasons": list(self.reasons),
            "needs": self.needs,
            "test": None if self.test is None else self.test.as_dict(),
            "live": self.live,
        }


def verdict_of_strategy(
    performance: Mapping[str, Any],
    test: JointTest | None,
    *,
    skill_low: float | None,
    min_trades: int = MIN_TRADES,
) -> Verdict:
    """The verdict on one strategy; the first row that holds decides.

    | closed trades | Sharpe | joint test              | skill's low | verdict             |
    |---------------|--------|-------------------------|-------------|---------------------|
    | < 30          | any    | any                     | any         | not enough evidence |
    | >= 30         | none   | any                     | any         | not enough evidence |
    | >= 30         | <= 0   | any                     | any         | no edge             |
    | >= 30         | > 0    | p <= the batch's level  | any         | edge                |
    | >= 30         | > 0    | mean beyond passive <= 0| any         | no edge             |
    | >= 30         | > 0    | p > 0.2                 | <= 0        | no edge             |
    | >= 30         | > 0    | anything else           | any         | not enough evidence |

    performance: a dict of `performance.performance`. test: of `joint_test`, None where no test was made. skill_low:
    lower bound of the model's skill beyond the level, None where it has no interval.
    """
    settled = _without_test(performance, test, min_trades)
    if settled is not None or test is None or test.p_value is None or test.statistic is None:
        why = "returns were not tested" if test is None else test.reason
        untested = Verdict("not enough evidence", (f"no test of the returns: {why}",), "a longer record", test)
        return settled or untested
    value = performance["sharpe"]["value"]
    decided = f"Sharpe {value:.2f} after costs: {_decided(test)}"
    skill = _skill_sentence(skill_low)
    live, record = _live_sentence(performance), live_of(performance)
    if test.passed:
        return Verdict("edge", (decided, skill, *live), None, test, record)
    if test.statistic <= 0:
        passive = f"Sharpe {value:.2f} after costs, yet no more than its average exposure would have earned"
        return Verdict("no edge", (passive, skill), None, test)
    if skill_low is not None and skill_low <= 0 and test.p_value > SUGGESTIVE:
        return Verdict("no edge", (decided, skill), None, test)
    return Verdict("not enough evidence", (decided, skill, *live), _longer_record(performance, test), test, record)


def verdict_of_run(skill_interval: tuple[float, float] | None, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a run; the first row that holds decides.

    | strategies                              | model's skill interval | verdict             |
    |-----------------------------------------|------------------------|---------------------|
    | one has an edge                         | any                    | edge                |
    | none has, none suggests one (p <= 0.2)  | known, not above zero  | no edge             |
    | one or more, all "no edge"              | any                    | no edge             |
    | none was run                            | above zero             | not enough evidence |
    | anything else                           | any                    | not enough evidence |

    skill_interval: (low, high) of the out-of-sample skill beyond the level, None where unknown. verdicts: by strategy
    name.
    """
    winners = {name: verdict for name, verdict in verdicts.items() if verdict.kind == "edge"}
    if winners:
        return Verdict("edge", tuple(f"{name} has an edge: {_first(verdict)}" for name, verdict in winners.items()))
    if skill_interval is not None and not skill_interval[0] > 0 and not any(map(_suggests, verdicts.values())):
        low, high = skill_interval
        best = "" if not verdicts else f"; {counted(len(verdicts), 'strategy')} with nothing beyond luck"
        reason = f"the model's skill interval [{_four(low)}, {_four(high)}] is not above zero{best}"
        return Verdict("no edge", (reason,))
    if verdicts and all(verdict.kind == "no edge" for verdict in verdicts.values()):
        return Verdict("no edge", tuple(_by_text({name: _first(verdict) for name, verdict in verdicts.items()})))
    unsure = {name: verdict for name, verdict in verdicts.items() if verdict.kind == "not enough evidence"}
    needs = _by_text({name: verdict.needs for name, verdict in unsure.items() if verdict.needs})
    reasons = _by_text({name: _first(verdict) for name, verdict in unsure.items()}) or [UNTRADED]
    if not verdicts:
        needs.append("a strategy on these forecasts that pays after costs")
    if skill_interval is None:
        reasons.append("the model's skill has no interval")
    return Verdict("not enough evidence", tuple(reasons), "; ".join(needs) or None)


def _by_text(texts: Mapping[str, str]) -> list[str]:
    """`name: text`, names of equal texts together, in the order of their first."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return [f"{', '.join(some)}: {text}" for text, some in names.items()]


def _without_test(performance: Mapping[str, Any], test: JointTest | None, min_trades: int) -> Verdict | None:
    """The verdict where trades or the Sharpe ratio settle it; None where the test decides."""
    n_trades, value = performance["n_trades"], performance["sharpe"]["value"]
    if n_trades < min_trades:
        reason = f"{counted(n_trades, 'closed trade')}; {min_trades} are the least that are evaluated"
        return Verdict("not enough evidence", (reason,), _days_to_trades(performance, min_trades), test)
    if value is None:
        return Verdict("not enough evidence", (f"no Sharpe ratio: {performance['sharpe']['reason']}",), None, test)
    if value <= 0:
        return Verdict("no edge", (f"Sharpe {value:.2f} after costs is not above zero",), None, test)
    return None


def _first(verdict: Verdict) -> str:
    return verdict.reasons[0] if verdict.reasons else verdict.kind


def _suggests(verdict: Verdict) -> bool:
    """True where a strategy with enough trades earned more than luck mostly gives."""
    tested = verdict.test is not None and verdict.test.p_value is not None and verdict.test.p_value <= SUGGESTIVE
    return verdict.kind == "not enough evidence" and tested


def _decided(test: JointTest) -> str:
    among = "" if test.n_in_batch == 1 else f", of {counted(test.n_in_batch, 'strategy')} at once,"
    before = "the first try" if test.batch == 1 else f"try {test.batch}"
    return (
        f"beyond its average exposure luck alone does as well with p = {test.p_value:.3g}; as {before} on this "
        f"span{among} it may be "
        f"{test.level:.2g} at most"
    )


def _skill_sentence(skill_low: float | None) -> str:
    if skill_low is None:
        return "the model's skill has no interval"
    agrees = "above zero, which agrees" if skill_low > 0 else "not above zero, so the model itself shows no skill"
    return f"the model's skill has the lower bound {_four(skill_low)}: {agrees}"


def _four(value: float) -> str:
    """Four digits, or one that counts where they would be zeros: a bound of 0.00003 must not read as 0.0000."""
    return f"{value:.4f}" if abs(value) >= 0.00005 or value == 0 else f"{value:.1g}"


def live_of(performance: Mapping[str, Any]) -> ExpectedRecord | None:
    """The expected live record; None for a Sharpe undefined or not positive."""
    sharpe = performance.get("sharpe_per_period")
    return None if sharpe is None else live_record(sharpe, performance["periods_per_year"])


def _live_sentence(performance: Mapping[str, Any]) -> tuple[str, ...]:
    """How long a live record must run, in one sentence; empty where the Sharpe per period is undefined."""
    sharpe = performance.get("sharpe_per_period")
    if sharpe is None:
        return ()
    periods = bars_to_confirm(sharpe)
    if periods is None:
        return ("live, at this Sharpe no record of a lifetime would confirm it",)
    years = periods / performance["periods_per_year"]
    return (
        f"live, at this Sharpe about {periods} periods ({years:.1f} years), watched daily, would confirm or refute it",
    )


def _days_to_trades(performance: Mapping[str, Any], min_trades: int) -> str:
    days, n_trades = performance["years"] * DAYS_PER_YEAR, performance["n_trades"]
    if n_trades == 0:
        return f"closed trades: none in {days:.0f} days, so no rate to extrapolate"
    more = (min_trades - n_trades) * days / n_trades
    rate = n_trades / days
    return f"about {max(1, round(more))} more days at {rate:.2g} trades a day to reach {min_trades} trades"


def _longer_record(performance: Mapping[str, Any], test: JointTest) -> str:
    """The record length at which this mean over this error would pass, the error falling with the root of time."""
    assert test.statistic is not None
    times = (special.ndtri(1 - test.level) / test.statistic) ** 2
    periods, years = performance["n_periods"], performance["years"]
    if times <= 1:
        return f"a record longer than {periods} periods ({years:.1f} years): the bootstrap's tail is not clear yet"
    return (
        f"a record of about {times * periods:.0f} periods ({times * years:.1f} years) at this Sharpe; "
        f"there are {periods} ({years:.1f} years)"
    )
