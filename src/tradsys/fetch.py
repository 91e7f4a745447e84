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
added to stored ones; a stored bar that the file gives otherwise stops the write (conflicts=, mode=replace).
"""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from tradsys.config.compose import as_dict, build, compose, run_command
from tradsys.core.errors import DataError


def work(argv: list[str]) -> None:
    """Reads the file, writes the store, prints what came in, what was repaired and what changed."""
    from tradsys.market.store import BarStore
    from tradsys.market.updates import print_import

    config = compose("fetch", argv)
    plain = as_dict(config)
    store, console = BarStore(Path(plain["paths"]["data"])), Console(soft_wrap=True, highlight=False, markup=False)
    if plain["mode"] in ("undo", "clean"):
        console.print(_housekeeping(store, plain["name"], plain["mode"]))
        return
    source = build(config)["source"]
    if not hasattr(source, "read"):  # downloads, symbol by symbol
        from tradsys.market.downloads.run import run_download

        if code := run_download(source, plain, console):
            sys.exit(code)
        return
    if plain["path"] is None and plain["actions"] is not None:
        console.print(_add_actions(store, plain))
        return
    if plain["path"] is None:
        raise DataError("config: 'path' has no value; it is the file or folder to read; give path=...")
    result = source.read()
    summary = store.append(
        str(plain["name"]), result.bars, result.meta, mode=plain["mode"], conflicts=plain["conflicts"]
    )
    print_import(console, result, summary)
    if result.events.height:
        new, revised = store.add_events(str(plain["name"]), result.events, {"source": result.meta["source"]})
        console.print(f"events from adjusted closes: {new:,} new, {revised:,} revised")
    if plain["actions"] is not None:
        console.print(_add_actions(store, plain))


def _add_actions(store: Any, plain: dict[str, Any]) -> str:
    """Reads a file of dividends, splits or funding into the dataset; what came in, as a line."""
    from tradsys.core.runs import digest_file
    from tradsys.market.events.action_files import read_actions
    from tradsys.market.sources.sniff import FormKeys

    path, name = Path(str(plain["actions"])), str(plain["name"])
    keys = FormKeys(plain["separator"], plain["decimal"], plain["date_format"], plain["zone"], plain["header"], None)
    events = read_actions(path, plain["symbol"], keys, list(store.manifest(name)["symbols"]))
    new, revised = store.add_events(name, events, {"source": path.name, "sha256": digest_file(path)})
    counts = ", ".join(f"{n:,} {kind}" for kind, n in events.group_by("kind").len().sort("kind").iter_rows())
    return f"actions {path.name}: {counts}; {new:,} new, {revised:,} revised"


def _housekeeping(store: Any, name: str, mode: str) -> str:
    if mode == "clean":
        return f"{name}: {store.clean(name)} files of earlier content removed"
    manifest = store.undo(name)
    return f"{name}: restored {manifest['n_rows']:,} bars, {manifest['start']} to {manifest['end']}"


def main() -> None:
    """Command-line entry point."""
    run_command("fetch", work)


if __name__ == "__main__":
    main()
