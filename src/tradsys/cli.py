"""`tradsys VERB ...` is the same as `python -m tradsys.VERB ...`."""

import importlib
import sys

from tradsys import __version__

VERBS = {
    "train": "features, labels, models, bundle, backtest and report in one run",
    "tune": "many trials over purged folds, by any number of workers on one study",
    "compare": "models side by side: folds x seeds, paired, with intervals",
    "backtest": "strategy profiles on a bundle",
    "audit": "search of every part, from features to backtest, for look-ahead",
    "new": "a package of your own parts, with their tests",
    "export": "a passing run's bundle, verified and copied to models/",
    "daily": "a trading day's forecasts of a panel: in stages, checked by gates, published or not",
    "report": "writes a run's report again",
    "trade": "the bot: stored bars, simulated fills on a live feed, or real orders",
    "fetch": "brings bars into the store",
    "diagnose": "a tabular experiment's data: coverage, correlation, lift, balance, examples, advice",
    "doctor": "what this machine has, whether the run fits it, and recommended settings",
    "reproduce": "a run done again, number by number",
    "runs": "all runs of a folder side by side, and a page of them; rm and keep",
    "journal": "the trial ledger as a page: every evaluation on test data, by experiment",
}


def main() -> None:
    """Hands the remaining arguments to the verb's command.

    Unknown verbs exit with code 2.
    """
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in VERBS:
        sys.argv = [f"tradsys {verb}", *sys.argv[2:]]
        importlib.import_module(f"tradsys.{verb}").main()
        return
    from rich.console import Console  # noqa: PLC0415 - no command needs it for its --help

    if verb == "--version":
        Console().print(f"tradsys {__version__}", highlight=False)
        return
    wants_help = verb in ("-h", "--help")
    console = Console(stderr=not wants_help)
    console.print(
        "usage: tradsys VERB [key=value ...]; `tradsys VERB --help` shows all keys\n"
        "       quiet=true at any verb: results and errors only\n",
        markup=False,
        highlight=False,
    )
    for name, purpose in VERBS.items():
        console.print(f"  {name:<10}{purpose}", markup=False, highlight=False)
    if not wants_help:
        console.print(f"\nerror: {verb!r} is not a verb", style="red", markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
