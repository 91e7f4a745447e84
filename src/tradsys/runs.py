"""Lists all runs of a folder, writes runs/index.html and removes old runs.

  python -m tradsys.runs                                   every run, the newest first
  python -m tradsys.runs verdict=edge sort=-skill          runs with an edge, the most skilled first
  python -m tradsys.runs rm days=30 state=half-done        what would be removed; confirm=rm removes it
  python -m tradsys.runs keep run=train/20240101T000000Z_abcdef

Exit code 1 where the trial ledger is damaged: no deflated Sharpe ratio is shown then. Exit code 2 for a column or run
that is not there. Nothing is removed that the ledger, a promoted model or a study refers to.
"""

import sys
from dataclasses import replace
from pathlib import Path

from tradsys.config.compose import ConfigError, as_dict, compose, run_command

FILTERS = ("task", "state", "experiment", "data", "model", "verdict")


def work(argv: list[str]) -> None:
    """Lists runs, removes old ones or marks one as kept."""
    verbs = [a for a in argv if "=" not in a and not a.startswith("~")]
    if verbs not in ([], ["rm"], ["keep"]):
        raise ConfigError(f"runs: {' '.join(verbs)!r} is not understood; use rm, keep or none; the rest is key=value")
    plain = as_dict(compose("runs", [a for a in argv if a not in verbs]))
    from tradsys.reports.runs import page
    from tradsys.reports.terminal import prose
    from tradsys.research import run_index
    from tradsys.research.study_index import read_studies

    root = Path(plain["paths"]["runs"])
    if not root.is_dir():
        raise ConfigError(f"runs: no folder {root}; train first, or give paths.runs=...")
    listed = run_index.read_runs(root) + ([] if verbs else read_studies(root))
    rows = run_index.selected(listed, {key: plain[key] for key in FILTERS})
    if verbs == ["keep"]:
        page.print_kept(run_index.keep(root, plain["run"]))
    elif verbs == ["rm"]:
        referred = run_index.references(root, Path(plain["paths"]["models"]), plain["paths"]["ledger"])
        gone, kept = run_index.removable(root, rows, days=plain["days"], referred=referred)
        page.print_removal(gone, kept, confirmed=plain["confirm"] == "rm")
        if plain["confirm"] == "rm":
            run_index.remove(root, gone)
    else:
        problem = run_index.ledger_problem(plain["paths"]["ledger"], root)
        rows = run_index.ordered([replace(row, dsr=None) for row in rows] if problem else rows, plain["sort"])
        page.print_runs(rows, page.write_runs(rows, run_index.leaderboards(rows), root))
        if problem:
            prose().print(problem, style="red", markup=False)
            sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("runs", work)


if __name__ == "__main__":
    main()
