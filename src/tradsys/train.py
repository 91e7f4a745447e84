"""Trains a model and its baselines, exports a bundle, backtests it, writes a report.

python -m tradsys.train                                   the Transformer on the synthetic market
python -m tradsys.train +experiment=demo                  the same, small: two to three minutes on two cores
python -m tradsys.train data=btc_hourly split=reality     real bars from the store
python -m tradsys.train model=lightgbm labels.horizon_bars=48
python -m tradsys.train logger=mlflow                     also logged to MLflow; or wandb, trackio, tensorboard
python -m tradsys.train resume=runs/train/<run>           resumes an interrupted run
python -m tradsys.train resume=runs/train/<run> costs.fee_bps=20   evaluates again; keys that change a fit are refused
"""

from contextlib import nullcontext
from pathlib import Path

from tradsys.config.compose import ConfigError, as_dict, build, compose, recorded, run_command
from tradsys.config.resume import resumed_overrides
from tradsys.core.received import override_key
from tradsys.core.run_code import names_its_code
from tradsys.ops.machine.memory_guard import CONTAINER


def work(argv: list[str]) -> None:
    """Composes the experiment, trains it and prints the result."""
    from tradsys.ops.machine.preflight import check
    from tradsys.ops.tracking.contents import run_record
    from tradsys.ops.tracking.tracker import open_tracker
    from tradsys.reports.run.console import print_run
    from tradsys.research.experiment import Experiment, run
    from tradsys.research.pipeline.ledger_anchors import check_same_ledger
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.pipeline.trial_ledger import check_ledger

    # beside resume=, the run's own groups decide which keys inside them are known
    config = compose("train", [o for o in argv if "." not in override_key(o)])
    folder = Path(str(config.resume)) if config.resume else None
    with names_its_code(f"train: resume={folder}", folder, ConfigError) if folder else nullcontext():
        if folder is not None:
            argv = resumed_overrides(folder, argv)
        config = compose("train", argv)
        plain = as_dict(config)
        parts = build(config)  # first, so that a value of the wrong type is reported at once
        check(plain, CONTAINER)
        check_ledger(plain["paths"]["ledger"], plain["paths"]["runs"], writes=True)
        check_same_ledger(folder, plain["paths"]["ledger"])
        experiment, tracker = Experiment.of(parts), open_tracker(plain)
    with (
        open_run(Path(config.paths.runs), "train", recorded(plain), argv, folder) as opened,
        tracker.run(opened.name, "train", plain),
    ):
        report = run(experiment, opened, plain)
        tracker.log(run_record(report, opened))
    print_run(report, opened)


def main() -> None:
    """Command-line entry point."""
    run_command("train", work)


if __name__ == "__main__":
    main()
