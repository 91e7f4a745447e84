"""Searches the model's settings over purged folds, by any number of workers on one study.

python -m tradsys.tune data=btc_hourly split=reality sweep=transformer
python -m tradsys.tune sweep=lightgbm n_trials=100 n_workers=2
python -m tradsys.tune sweep=logistic storage=postgresql://me@host/sweeps      a shared study for workers anywhere
python -m tradsys.tune sweep=transformer trainer=gpu trials_per_gpu=4 hours=6
python -m tradsys.tune sweep=transformer sweep.objectives=[skill,stability]    the Pareto front
python -m tradsys.tune sweep=zoom study=transformer                            narrower, around its best region
python -m tradsys.tune promote study=transformer                              the winner as model=<name> of the project
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tradsys.config.compose import ConfigError, Kept, as_dict, build, compose, project_conf, run_command
from tradsys.config.trusted import checked_overrides
from tradsys.ops.machine.memory_guard import CONTAINER

if TYPE_CHECKING:
    from tradsys.research.sweeps.trial import Composed

BUILT: Kept = {}  # of the last configuration


def composed(overrides: Sequence[str]) -> "Composed":
    """The experiment, the sweep's settings and the resolved config of these overrides."""
    from tradsys.research.pipeline.settings import Experiment
    from tradsys.research.sweeps.trial import Composed

    # conf/study is a config group of audit, so Hydra would read study=x as a choice from that group
    config = compose("tune", [f"study_name={o[6:]}" if o.startswith("study=") else o for o in overrides])
    parts = build(config, BUILT)
    return Composed(Experiment.of(parts), parts["sweep"], as_dict(config))


def work(argv: list[str]) -> None:
    """Runs the search, or promotes a study's winner, and prints the result."""
    from tradsys.ops.machine.preflight import check
    from tradsys.ops.tracking.contents import study_records
    from tradsys.ops.tracking.tracker import open_tracker
    from tradsys.reports.sweep.console import print_sweep
    from tradsys.reports.terminal import prose
    from tradsys.research.pipeline.trial_ledger import check_ledger
    from tradsys.research.sweeps import commands, workers

    verbs = [a for a in argv if "=" not in a and not a.startswith("~")]
    overrides = [a for a in argv if a not in verbs]
    if verbs not in ([], ["promote"]):
        raise ConfigError(f"tune: {verbs} is not understood; the only verb is promote; the rest is key=value")
    if verbs:
        prose().print(f"model    {commands.promote(composed, overrides, project_conf() / 'model', checked_overrides)}")
        return
    if workers.is_worker():
        commands.tune_as_worker(composed, overrides, checked_overrides)
        return
    plain = composed(overrides).config
    check_ledger(plain["paths"]["ledger"], plain["paths"]["runs"], writes=True)
    check(plain, CONTAINER, int(plain["n_workers"] or plain["trials_per_gpu"]))
    tracker = open_tracker(plain)
    report, failed = commands.tune(composed, overrides, [sys.executable, "-m", "tradsys.tune"], checked_overrides)
    tracker.log_finished("tune", plain, *study_records(report))
    print_sweep(report, Path(report["folder"]))
    if failed or report["best"] is None:
        sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("tune", work)


if __name__ == "__main__":
    main()
