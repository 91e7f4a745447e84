"""Checks the data of a tabular experiment; exits with 2 where a feature fails.

python -m tradsys.diagnose +experiment=explosion                     coins, from the store
python -m tradsys.diagnose +experiment=explosion data=synthetic_daily data.explosions=0.03 labels.rise=0.3
python -m tradsys.diagnose +experiment=foundry                       any tabular experiment that train takes
python -m tradsys.diagnose +experiment=explosion diagnose.judge=true  also fits the model and reads the test span, once

Coverage by date, correlation with the label, events against the rest, lift of compression, class balance, worked
examples, advice. A feature computed for the last dates only, or one that drops away, fails by name. Whatever
reads labels ends before the test span begins, unless diagnose.judge=true.
"""

from pathlib import Path

from tradsys.config.compose import as_dict, build, compose, recorded, run_command
from tradsys.core.errors import GateError


def work(argv: list[str]) -> None:
    """Checks the data and writes the report; then GateError where a feature fails."""
    from tradsys.reports.diagnosis.page import print_diagnosis, write_diagnosis
    from tradsys.research.diagnosis.diagnosis import diagnose, stop_message
    from tradsys.research.experiment import Experiment
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.pipeline.trial_ledger import check_ledger

    config = compose("diagnose", argv)
    plain, parts = as_dict(config), build(config)
    experiment, settings = Experiment.of(parts), parts["diagnose"]
    root = Path(plain["paths"]["runs"])
    if settings.judge:
        check_ledger(plain["paths"]["ledger"], root, writes=True)
    with open_run(root, "diagnose", recorded(plain), argv) as folder:
        report = diagnose(experiment, settings, plain, folder)
        write_diagnosis(report, folder)
    print_diagnosis(report, folder)
    if failure := stop_message(report):
        raise GateError(f"{failure}; report: {folder / 'report.html'}")


def main() -> None:
    """Command-line entry point."""
    run_command("diagnose", work)


if __name__ == "__main__":
    main()
