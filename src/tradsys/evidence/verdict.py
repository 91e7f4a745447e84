"""Edge, no edge, or not enough evidence: one rule for every strategy and every run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tradsys.evidence.performance import DAYS_PER_YEAR
from tradsys.evidence.sharpe import MIN_TRADES

Kind = Literal["edge", "no edge", "not enough evidence"]
MIN_DSR = 0.95
UNTRADED = "no strategy was judged: a forecast alone earns nothing, so skill alone is no edge"


@dataclass(frozen=True)
class Verdict:
    """The judgement, why, and what would be needed to know more (None where nothing would change it)."""

    kind: Kind
    reasons: tuple[str, ...]
    needs: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """kind, reasons (a list) and needs, ready for JSON."""
        return asdict(self) | {"reasons": list(self.reasons)}


def judge(
    performance: Mapping[str, Any],
    *,
    skill_low: float | None,
    min_trades: int = MIN_TRADES,
    min_dsr: float = MIN_DSR,
) -> Verdict:
    """The verdict on one strategy; the first row that holds decides.

    | closed trades | Sharpe | DSR >= 0.95 | Sharpe's low > 0 | skill's low > 0 | verdict             |
    |---------------|--------|-------------|------------------|-----------------|---------------------|
    | < 30          | any    | any         | any              | any             | not enough evidence |
    | >= 30         | <= 0   | any         | any              | any             | no edge             |
    | >= 30         | > 0    | yes         | yes              | yes             | edge                |
    | >= 30         | > 0    | no          | any              | no              | no edge             |
    | >= 30         | anything else, the unknown included              ||| | not enough evidence |

    performance: a dict of `performance.performance`, with its trials counted in. skill_low: lower bound of
    the model's out-of-sample log-loss skill, None where it has no interval; then there is neither an edge
    nor its denial by the model. "low > 0" of the Sharpe also asks that 95 % of its block-bootstrap draws
    exceed the luck of the trials: the DSR's formula takes returns for independent, which dependent noise
    would pass three times too often.
    """
    n_trades, value = performance["n_trades"], performance["sharpe"]["value"]
    if n_trades < min_trades:
        reason = f"{n_trades} closed trades; {min_trades} are the least that are judged"
        return Verdict("not enough evidence", (reason,), _days_to_trades(performance, min_trades))
    if value is None:
        return Verdict("not enough evidence", (f"no Sharpe ratio: {performance['sharpe']['reason']}",))
    if value <= 0:
        return Verdict("no edge", (f"Sharpe {value:.2f} after costs is not above zero",))
    deflated = performance["dsr"] is not None and performance["dsr"] >= min_dsr
    low = performance["sharpe"]["low"]
    above_luck = performance["dsr_bootstrap"]
    bounded = low is not None and low > 0 and above_luck is not None and above_luck >= min_dsr
    skilled = skill_low is not None and skill_low > 0
    reasons = (
        f"Sharpe {value:.2f} after costs is above zero",
        _deflated_reason(performance, min_dsr),
        f"its lower bound is {_shown(low)}, with {_shown(above_luck, 3)} of the draws above luck; "
        f"must be above zero and at least {min_dsr:g}",
        f"the model's skill has the lower bound {_shown(skill_low, 4)}; must be above zero",
    )
    if deflated and bounded and skilled:
        return Verdict("edge", reasons)
    if skill_low is not None and not skilled and not deflated:
        return Verdict("no edge", reasons)
    return Verdict("not enough evidence", reasons, _needs(performance, deflated, bounded, skilled))


def judge_run(skill_interval: tuple[float, float] | None, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The verdict on a whole run; the first row that holds decides.

    | strategies                  | model's skill interval | verdict             |
    |-----------------------------|------------------------|---------------------|
    | one has an edge             | any                    | edge                |
    | none has                    | known, not above zero  | no edge             |
    | one or more, all "no edge"  | any                    | no edge             |
    | none was run                | above zero             | not enough evidence |
    | anything else               | any                    | not enough evidence |

    skill_interval: (low, high) of the out-of-sample log-loss skill, None where unknown. verdicts: by
    strategy name.
    """
    winners = [name for name, verdict in verdicts.items() if verdict.kind == "edge"]
    if winners:
        return Verdict("edge", tuple(f"{name} has an edge" for name in winners))
    if skill_interval is not None and not skill_interval[0] > 0:
        low, high = skill_interval
        reason = f"the model's skill interval [{low:.4f}, {high:.4f}] is not above zero"
        return Verdict("no edge", (reason,))
    if verdicts and all(verdict.kind == "no edge" for verdict in verdicts.values()):
        return Verdict("no edge", tuple(f"{name}: {verdict.reasons[0]}" for name, verdict in verdicts.items()))
    unsure = {name: verdict for name, verdict in verdicts.items() if verdict.kind == "not enough evidence"}
    needs = [f"{name}: {verdict.needs}" for name, verdict in unsure.items() if verdict.needs]
    reasons = [f"{name}: {verdict.reasons[0]}" for name, verdict in unsure.items()] or [UNTRADED]
    if not verdicts:
        needs.append("a strategy on these forecasts that pays after costs")
    if skill_interval is None:
        reasons.append("the model's skill has no interval")
    return Verdict("not enough evidence", tuple(reasons), "; ".join(needs) or None)


def _days_to_trades(performance: Mapping[str, Any], min_trades: int) -> str:
    days, n_trades = performance["years"] * DAYS_PER_YEAR, performance["n_trades"]
    if n_trades == 0:
        return f"closed trades: none in {days:.0f} days, so no rate to reckon with"
    more = (min_trades - n_trades) * days / n_trades
    rate = n_trades / days
    return f"about {max(1, round(more))} more days at {rate:.2g} trades a day to reach {min_trades} trades"


def _deflated_reason(performance: Mapping[str, Any], min_dsr: float) -> str:
    luck = performance["expected_max_sharpe"]
    return (
        f"deflated Sharpe ratio {_shown(performance['dsr'], 3)} (least {min_dsr:g}); "
        f"luck over {performance['n_trials']:g} trials shows a Sharpe of {luck:.2f}"
    )


def _needs(performance: Mapping[str, Any], deflated: bool, bounded: bool, skilled: bool) -> str:
    if not deflated:
        periods, years = performance["min_track_record_periods"], performance["min_track_record_years"]
        if periods is None:
            return performance["reasons"].get("min_track_record_periods", "a Sharpe ratio that is defined")
        return (
            f"a record of {periods:.0f} periods ({years:.1f} years) at this Sharpe; "
            f"there are {performance['n_periods']} ({performance['years']:.1f} years)"
        )
    missing = [] if bounded else ["a longer record: the bootstrap of the Sharpe is not clear of zero and of luck"]
    if not skilled:
        missing.append("more out-of-sample samples: the model's skill interval is not above zero")
    return "; ".join(missing)


def _shown(value: float | None, digits: int = 2) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
