"""Brings bars into the store under data/: validated, compared with what is stored, digested, written atomically.

  python -m tradsys.fetch path=BTCUSDT_1h.parquet layout=binance symbol=BTCUSDT name=crypto_hourly
  python -m tradsys.fetch path=BHP.AX.csv layout=yahoo symbol=BHP.AX calendar=XASX name=asx_daily
  python -m tradsys.fetch path=universe_1h.parquet layout=binance repair=[split_reused_ticker] resample=1d name=coins
  python -m tradsys.fetch path=export.csv separator=semicolon decimal=comma zone=Europe/Berlin name=mine
  python -m tradsys.fetch source=binance_archive symbols=[BTC-USD,ETH-USD] start=2021-01-01 name=coins_hourly
  python -m tradsys.fetch source=ccxt source.exchange=kraken universe=coins.csv name=kraken_hourly
  python -m tradsys.fetch actions=AAPL_actions.csv symbol=AAPL name=us_daily     dividends, splits, funding rates
  python -m tradsys.fetch name=mine mode=undo                     the content before the last write

Nothing is repaired silently: each repair that changes numbers is named in the command and reported. New bars are
added to stored ones; where the file has other values for a stored bar, nothing is written (see conflicts= and
mode=replace).
"""

import sys
from pathlib import Path

from tradsys.config.compose import as_dict, build, compose, run_command


def work(argv: list[str]) -> None:
    """Reads the source, writes the store; prints new bars, repairs and changes."""
    from tradsys.core.received import override_key
    from tradsys.market.downloads.importing import check_keys, housekeeping, store_files
    from tradsys.market.store import BarStore
    from tradsys.reports.terminal import prose

    config = compose("fetch", argv)
    plain = as_dict(config)
    store, console = BarStore(Path(plain["paths"]["data"])), prose()
    given = {override_key(one) for one in argv}
    if plain["mode"] in ("undo", "clean"):
        check_keys(plain, given, downloads=False)
        console.print(housekeeping(store, plain["name"], plain["mode"]))
        return
    source = build(config)["source"]
    downloads = not hasattr(source, "read")  # symbol by symbol
    check_keys(plain, given, downloads=downloads)
    if downloads:
        from tradsys.market.downloads.run import run_download

        if code := run_download(source, plain, console):
            sys.exit(code)
        return
    store_files(source, store, plain, console)


def main() -> None:
    """Command-line entry point."""
    run_command("fetch", work)


if __name__ == "__main__":
    main()
