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
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from omegaconf import OmegaConf

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command

VERBS = ("replay", "paper", "live", "status", "stop", "flatten", "resume", "report")


def _with_defaults(verb: str, argv: list[str]) -> list[str]:
    """The overrides, with the profile of the environment where none is given, and no limits in a replay."""
    load_dotenv(Path(".env"))
    given = {o.lstrip("+").partition("=")[0] for o in argv}
    profile = os.environ.get("STRATEGY_PROFILE", "").strip().lower()
    added = [f"strategy={profile}"] if profile and "strategy" not in given else []
    if verb == "replay" and "risk" not in given:
        added.append("risk=none")
    # data is a group of train's, so Hydra would look for a choice of it here
    return [f"data_choice={o[5:]}" if o.startswith("data=") else o for o in (*added, *argv)]


def _source(plain: dict[str, Any], bundle: Any) -> Any:
    """The source of stored bars: of the data config that was named, else of the one the bundle was made from."""
    if plain["data_choice"] is None:
        return build(OmegaConf.create({"data": bundle.data_config()}))["data"]["source"]
    chosen = compose("train", [f"data={plain['data_choice']}", f"paths.data={plain['paths']['data']}"])
    return build(chosen)["data"]["source"]


def work(argv: list[str]) -> None:
    """Composes, runs the verb, prints."""
    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb not in VERBS:
        raise ConfigError(f"trade: {verb or 'nothing'!r} is no verb; the verbs are {', '.join(VERBS)}; see --help")
    from tradsys.ops.trading import commands
    from tradsys.serving.bundle import Bundle

    config = compose("trade", _with_defaults(verb, rest))
    if config.levels is None:
        decides = verb in ("replay", "paper", "live")
        config.levels = Bundle.load(str(as_dict(config)["bundle"])).levels if decides else "score"
    commands.VERBS[verb](as_dict(config), build(config), _source)


def main() -> None:
    """Command-line entry point."""
    run_command("trade", work)


if __name__ == "__main__":
    main()
