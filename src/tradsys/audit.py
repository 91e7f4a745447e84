"""Searches every part of a composed experiment for look-ahead; exits with 1 where it finds any.

  python -m tradsys.audit                                   the default experiment, on the synthetic market
  python -m tradsys.audit +experiment=demo                  any experiment that train takes, same overrides
  python -m tradsys.audit data=btc_hourly split=reality     real bars from the store
  python -m tradsys.audit audit.parts=[features,labels]     some parts; audit.questions=[future,past,sealed]
  python -m tradsys.audit study=null|power                  error rates of the verdict over many markets; resumable
  python -m tradsys.audit study=null study.kinds=[garch]    the quick process on that kind of market
  python -m tradsys.audit data=stored revisions=true        what the vendor's revisions changed, by the revision ledger

Three checks. `future`: values after t are cut, shuffled, scaled or made NaN, and nothing up to t may change. `past`: a
computation from `history` bars before t must give the same result at t. `sealed`: changed test rows must not change any
fitted state, and shuffled labels must give an out-of-sample AUC of 0.5. Fits are short: a few epochs and trees on the
latest bars. The result holds for the long fits too, because both use the same objects.
"""

import sys
from pathlib import Path

from tradsys.config.compose import as_dict, build, compose, recorded, run_command


def work(argv: list[str]) -> None:
    """Composes the experiment, runs the checks and prints the result."""
    from tradsys.reports.power_study_page import print_study
    from tradsys.reports.terminal import screen
    from tradsys.research.experiment import Experiment
    from tradsys.research.leakage.audit import audit, results_table
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.power_study.study import is_broken, study

    # Hydra would read a bare null as "no study"
    config = compose("audit", ["study='null'" if a == "study=null" else a for a in argv])
    plain, parts = as_dict(config), build(config)
    experiment = Experiment.of(parts)
    if plain["revisions"]:
        from tradsys.research.prints import prints_of, prints_table

        screen().print(prints_table(prints_of(experiment)))
        return
    if "study" in parts and parts["study"].kinds:
        from tradsys.reports.power_study_kinds import print_kinds
        from tradsys.research.power_study.quick_study import study_of

        found = study_of(parts["study"], experiment.costs, Path(plain["paths"]["runs"]) / "study")
        print_kinds(found)
        sys.exit(1 if found["broken"] else 0)
    if "study" in parts:
        summary = study(experiment, parts["study"], Path(plain["paths"]["runs"]) / "study", plain)
        print_study(summary)
        sys.exit(1 if is_broken(summary) else 0)
    with open_run(Path(plain["paths"]["runs"]), "audit", recorded(plain), argv) as folder:
        answers = audit(experiment, parts["audit"], folder, plain)
    screen().print(results_table(answers))
    if any(answer.finding for answer in answers):
        sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("audit", work)


if __name__ == "__main__":
    main()
