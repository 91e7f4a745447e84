"""Trades a bundle bar by bar: stored bars, simulated fills on a live feed, or real orders.

  python -m tradsys.trade replay bundle=models/btc/1 strategy=audited since=2024-01-01    stored bars, full speed
  python -m tradsys.trade paper  bundle=models/btc/1 exchange=binance                     live feed, simulated fills
  python -m tradsys.trade live   bundle=models/btc/1 exchange=binance confirm=live        real orders, sandbox first
  python -m tradsys.trade status | stop | flatten | resume | report   name=...            from another terminal

Without strategy= the profile named by STRATEGY_PROFILE (environment or .env) trades. Decisions come from the same
`Bundle.predict` and `Strategy.targets` as in the backtest. Keys come from the environment alone. docs/trading.md leads
from a promoted bundle to a small account. Nothing here has traded real money yet.
"""

import os
from functools import partial

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.config.environment import read_environment
from tradsys.config.named_data import named_source, split_data_keys, with_costs_of

VERBS = ("replay", "paper", "live", "status", "stop", "flatten", "resume", "report")


def _with_defaults(verb: str, argv: list[str]) -> list[str]:
    """The overrides with the environment's profile as default; no limits in a replay."""
    read_environment()
    given = {o.lstrip("+").partition("=")[0] for o in argv}
    profile = os.environ.get("STRATEGY_PROFILE", "").strip().lower()
    added = [f"strategy={profile}"] if profile and "strategy" not in given else []
    if verb == "replay" and "risk" not in given:
        added.append("risk=none")
    return [*added, *argv]


def work(argv: list[str]) -> None:
    """Composes the configuration, runs the verb and prints the result."""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb not in VERBS:
        raise ConfigError(f"trade: {verb or 'nothing'!r} is no verb; the verbs are {', '.join(VERBS)}; see --help")
    from tradsys.ops.trading import commands

    overrides, own = split_data_keys(_with_defaults(verb, rest), own_keys=("symbols",))
    config = compose("trade", overrides)
    levels, data_config = commands.of_the_bundle(verb, as_dict(config))
    with_costs = with_costs_of(data_config, overrides)
    config = config if with_costs == overrides else compose("trade", with_costs)
    if config.levels is None:
        config.levels = levels
    commands.VERBS[verb](as_dict(config), build(config), partial(named_source, data=own, command="trade"))


def main() -> None:
    """Command-line entry point."""
    run_command("trade", work)


if __name__ == "__main__":
    main()
