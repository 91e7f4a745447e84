"""Backtests strategy profiles on a bundle's test span, or on later or other data.

  python -m tradsys.backtest                                           the latest bundle, all four profiles
  python -m tradsys.backtest bundle=models/btc/1 strategy=[sniper,audited,reckless]
  python -m tradsys.backtest data=eth_hourly span=later                bars the bundle has never seen
  python -m tradsys.backtest data=stored data.source.name=coins symbols=[NEWUSDT] market_symbol=BTCUSDT span=later
  python -m tradsys.backtest costs.fee_bps=5 strategy=[cost_aware]

Without strategy= the profile named by STRATEGY_PROFILE (environment or .env) runs, else all four. Every run is an
evaluation on test data: it enters the trial ledger and deflates every Sharpe ratio of that span.
"""

import os
from pathlib import Path

from tradsys.config.compose import as_dict, build, compose, recorded, run_command
from tradsys.config.environment import read_environment
from tradsys.config.named_data import named_source, split_data_keys, with_costs_of


def _with_profile(argv: list[str]) -> list[str]:
    """The overrides, with the environment's profile where no strategy is given."""
    read_environment()
    profile = os.environ.get("STRATEGY_PROFILE")
    given = any(a.lstrip("+").startswith("strategy=") for a in argv)
    return [*argv, f"strategy=[{profile}]"] if profile and not given else argv


def work(argv: list[str]) -> None:
    """Composes the configuration, backtests the profiles and prints the result."""
    from tradsys.reports.run.console import print_run
    from tradsys.research.bundle_backtest import backtest_bundle
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.pipeline.trial_ledger import check_ledger
    from tradsys.serving.bundle import Bundle

    overrides, own = split_data_keys(argv)
    chosen = _with_profile(overrides)
    config = compose("backtest", chosen)
    bundle = Bundle.load(str(as_dict(config)["bundle"]))
    config = compose("backtest", with_costs_of(bundle.data_config(), chosen))
    if config.levels is None:
        config.levels = bundle.levels
    plain, parts = as_dict(config), build(config)
    check_ledger(plain["paths"]["ledger"], plain["paths"]["runs"], writes=True)
    with open_run(Path(plain["paths"]["runs"]), "backtest", recorded(plain), argv) as folder:
        report = backtest_bundle(bundle, named_source(plain, bundle, own, "backtest"), parts, plain, folder)
    print_run(report, folder)


def main() -> None:
    """Command-line entry point."""
    run_command("backtest", work)


if __name__ == "__main__":
    main()
