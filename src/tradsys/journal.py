"""Writes the trial ledger as a research journal, one entry per experiment.

An entry has the question, the changed settings, the result with its interval, the verdict and a link to the run.

python -m tradsys.journal                              runs/journal.md and runs/journal.html
python -m tradsys.journal paths.runs=/mnt/lab/runs
python -m tradsys.journal paths.ledger=postgresql://lab@db/ledger

Exit code 1 where the ledger's chain of hashes has a gap; the journal is written all the same and states it at the top.
"""

import sys
from pathlib import Path

from tradsys.config.compose import ConfigError, as_dict, compose, run_command
from tradsys.core.errors import DataError
from tradsys.core.plurals import counted
from tradsys.core.received import refused_in_one_line


def work(argv: list[str]) -> None:
    """Reads the ledger and its runs, writes both files and prints their paths."""
    from tradsys.reports.journal.page import write_journal
    from tradsys.reports.terminal import prose
    from tradsys.research.journal import FIX, journal
    from tradsys.research.pipeline.ledger_database import stays_empty
    from tradsys.research.pipeline.trial_ledger import TrialLedger, check_ledger

    paths = as_dict(compose("journal", argv))["paths"]
    place, runs = paths["ledger"], Path(paths["runs"])
    is_file = "://" not in place
    if is_file and not (Path(place).is_file() and not stays_empty(Path(place))):
        check_ledger(place, runs)  # one that is gone or empty is another matter than one that has not begun
        raise ConfigError(
            f"journal: no ledger at {place}; the first evaluation of out-of-sample data makes one; "
            "train first, or give paths.ledger=..."
        )
    reported = journal(TrialLedger(place, runs), runs, beside=runs)
    console = prose()
    with refused_in_one_line(f"journal: {runs}", FIX, DataError):
        written = write_journal(reported, runs)
    for path in written:
        console.print(str(path))
    n = len(reported["experiments"])
    counts = f"{counted(n, 'experiment')}, {counted(reported['n_looks'], 'evaluation')}"
    console.print(f"{counts}, {reported['n_trials']} return series")
    for problem in reported["problems"]:
        console.print(problem, style="red")
    if reported["problems"]:
        sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("journal", work)


if __name__ == "__main__":
    main()
