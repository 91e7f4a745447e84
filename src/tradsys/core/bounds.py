"""Ranges of settings, written as `(0, 1]` and checked when a config is built."""

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from tradsys.core.errors import TrainingError

INTERVAL = re.compile(r"(null or )?(whole )?([\[(])(-?[\w.]+), (-?[\w.]+)([\])])")
MOST_WHOLE = 2**31 - 1  # the largest integer of the C libraries that receive such settings
# The largest value by the name of a setting, whichever part has it. A larger value has no effect, never ends, or fits
# into no machine. A value that is merely a poor choice is accepted.
LARGEST: Mapping[str, float] = {
    # AdamW moves a weight by up to its rate at every step; a tree that is added more than once jumps over the minimum
    "lr": 1, "learning_rate": 1, "weight_decay": 100, "mixup": 1000, "temperature": 1000,
    # memory and time grow with each of these, and nets are built when a configuration is checked
    "n_layers": 1000, "n_levels": 64, "n_heads": 1024, "d_model": 65536, "width": 65536, "ffn_mult": 256,
    "projection_dim": 65536, "kernel_bars": 65536, "lookback": 1e6, "batch_size": 1e7, "places": 65536,
    "values": 65536, "patch": 65536, "n_states": 100, "n_neighbours": 1e6,
    # numbers of repetitions
    "max_epochs": 1e6, "epochs": 1e6, "n_estimators": 1e6, "max_depth": 64, "max_iter": 1e7, "n_seeds": 1e5,
    "n_draws": 1e7, "n_oof_folds": 1e4, "n_folds": 1e4, "n_permutations": 1e6, "n_placebos": 1e7, "cpcv_groups": 40,
    "share": 100, "n_trials": 1e7, "n_markets": 1e7, "max_retries": 1e4, "attempts": 1e4, "every_hours": 1e5,
    # processes and machines
    "n_jobs": 4096, "n_workers": 4096, "devices": 4096, "num_nodes": 65536, "processes": 4096, "n_threads": 4096,
    "trials_per_gpu": 4096, "stacked_trials": 4096,
    # a plan of trades
    "max_gross": 1000, "position_volatility": 100, "stop_atr": 1000, "target_atr": 1000,
    # made-up markets
    "n_bars": 1e9, "n_symbols": 1e6, "n_sessions": 1e6, "edge": 100, "shape": 100,
}  # fmt: skip


def too_large(name: str, value: Any) -> str | None:
    """The limit in words where a setting's number exceeds it; None where it does not.

    Amounts of bytes have no limit. NaN is refused: a gate with NaN as its bound never stops.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if math.isnan(value):
        return "a number"
    most = LARGEST.get(name, MOST_WHOLE if isinstance(value, int) and not name.endswith("bytes") else math.inf)
    return f"at most {most:,.0f}" if abs(value) > most else None


def check_bounds(where: str, part: Any, rules: Mapping[str, str], key: str) -> None:
    """Raises TrainingError for the first attribute of `part` that leaves its range.

    NaN and words leave every range. part: an object, or a mapping. rules: name -> range such as `[0, 1)`, `(0, inf]`,
    `whole [1, inf)` or `null or whole [1, inf)`; a round bracket excludes its end. key: config path of the part, named
    in the error.
    """
    for name, rule in rules.items():
        value = part[name] if isinstance(part, Mapping) else getattr(part, name)
        if not is_within(value, rule):
            raise TrainingError(f"{where}: {name}={value!r}; it must be {_spoken(rule)}; set {key}.{name}")


def is_within(value: Any, rule: str) -> bool:
    """Whether a value lies in a range, see `check_bounds`."""
    found = INTERVAL.fullmatch(rule)
    assert found, rule
    nullable, whole, left, low, high, right = found.groups()
    if value is None or isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        return value is None and bool(nullable)
    number, least, most = float(value), float(low), float(high)
    above = number > least or (left == "[" and number == least)
    below = number < most or (right == "]" and number == most)
    return not math.isnan(number) and above and below


def _spoken(rule: str) -> str:
    nullable, _, rest = rule.rpartition("null or ")
    kind = "a whole number in " if rest.startswith("whole ") else "a number in "
    return ("null or " if nullable or rule != rest else "") + kind + rest.removeprefix("whole ")
