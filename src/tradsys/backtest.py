"""Backtests strategy profiles on a bundle's test span, or on later or other data.

  python -m tradsys.backtest                                           the latest bundle, all four profiles
  python -m tradsys.backtest bundle=models/btc/1 strategy=[sniper,audited,reckless]
  python -m tradsys.backtest data=eth_hourly span=later                bars the bundle has never seen
  python -m tradsys.backtest data=stored data.source.name=coins symbols=[NEWUSDT] market_symbol=BTCUSDT span=later
  python -m tradsys.backtest costs.fee_bps=5 strategy=[cost_aware]

Without strategy= the profile named by STRATEGY_PROFILE (environment or .env) runs, else all four. Every run is a
read of out-of-sample data: it enters the ledger and deflates every Sharpe of that span.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotenv import load_dotenv
from omegaconf import OmegaConf

from tradsys.config.compose import as_dict, build, compose, run_command
from tradsys.config.trusted import built_source
from tradsys.core.errors import DataError

if TYPE_CHECKING:
    from tradsys.serving.bundle import Bundle


def _with_profile(argv: list[str]) -> list[str]:
    """The overrides, with the profile of the environment where no strategy is given."""
    load_dotenv(Path(".env"))
    profile = os.environ.get("STRATEGY_PROFILE")
    given = any(a.lstrip("+").startswith("strategy=") for a in argv)
    return [*argv, f"strategy=[{profile}]"] if profile and not given else argv


def work(argv: list[str]) -> None:
    """Composes, backtests, prints."""
    from tradsys.reports.run.console import print_run
    from tradsys.research.bundle_backtest import retest
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.pipeline.trial_ledger import check_ledger
    from tradsys.serving.bundle import Bundle

    # data is a group of train's, so Hydra would look for a choice of it here
    own = [a for a in argv if a.split("=")[0] in ("symbols", "market_symbol") or a.startswith("data.")]
    asked = [f"data_choice={a[5:]}" if a.startswith("data=") else a for a in argv if a not in own]
    config = compose("backtest", _with_profile(asked))
    bundle = Bundle.load(str(as_dict(config)["bundle"]))
    if config.levels is None:
        config.levels = bundle.levels
    plain, parts = as_dict(config), build(config)
    check_ledger(plain["paths"]["ledger"], plain["paths"]["runs"])
    with open_run(Path(plain["paths"]["runs"]), "backtest", OmegaConf.to_yaml(config, resolve=True), argv) as folder:
        report = retest(bundle, _source(plain, bundle, own), parts, plain, folder)
    print_run(report, folder)


def _source(plain: dict[str, Any], bundle: "Bundle", own: list[str]) -> Any:
    """The source of the named data config with its `own` keys (symbols=, ...), else the one of the bundle."""
    if plain["data_choice"] is None:
        if own:
            raise DataError(f"backtest: {own[0]} needs a data config to change; give data= too, such as data=stored")
        return built_source(bundle.data_config(), f"bundle {bundle.folder}")
    chosen = [f"data={plain['data_choice']}", f"paths.data={plain['paths']['data']}", *own]
    data = OmegaConf.to_container(compose("train", chosen).data, resolve=True)
    return build(OmegaConf.create({"data": data}))["data"]["source"]


def main() -> None:
    """Command-line entry point."""
    run_command("backtest", work)


if __name__ == "__main__":
    main()
