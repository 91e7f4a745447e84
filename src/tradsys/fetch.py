"""Brings bars into the store under data/, validated, digested, written whole.

  python -m tradsys.fetch source=file path=BTCUSDT_1h.parquet layout=binance symbol=BTCUSDT name=crypto_hourly
  python -m tradsys.fetch source=file path=BHP.AX.csv layout=yahoo symbol=BHP.AX calendar=XASX name=asx_daily
  python -m tradsys.fetch path=universe_1h.parquet layout=binance repair=[split_reused_ticker] resample=1d name=coins

Nothing is repaired silently: each repair that changes numbers is asked for by name and reported.
"""

from pathlib import Path

from rich.console import Console

from tradsys.config.compose import as_dict, build, compose, run_command


def work(argv: list[str]) -> None:
    """Reads the file, writes the store, prints what came in and what was repaired."""
    from tradsys.market.store import BarStore

    config = compose("fetch", argv)
    plain = as_dict(config)
    result = build(config)["source"].read()
    manifest = BarStore(Path(plain["paths"]["data"])).write(plain["name"], result.bars, result.meta)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for finding in (*result.repairs, *result.remarks):
        console.print(
            f"{finding.kind}: {finding.count:,} rows, such as {'; '.join(finding.examples[:2])}. {finding.note}"
        )
    for symbol, entry in manifest["symbols"].items():
        console.print(f"stored {symbol}: {entry['n_rows']:,} bars, {entry['start']} to {entry['end']}")
    console.print(f"digest {manifest['digest']}")


def main() -> None:
    """Command-line entry point."""
    run_command("fetch", work)


if __name__ == "__main__":
    main()
