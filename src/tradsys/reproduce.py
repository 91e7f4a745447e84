"""Repeats a training run from its stored config, data and seeds; compares all numbers.

python -m tradsys.reproduce                               the latest training run
python -m tradsys.reproduce runs/train/<run>              that run; run=... is the same
python -m tradsys.reproduce runs/train/<run> into=/tmp/again paths.data=/mnt/bars      where the bars lie here

Exit code 0: every number is the same. 1: some differ; the table shows them, and what else differs between the runs:
code, data, packages, machine or chance. 2: there is nothing to reproduce.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tradsys.config.as_of import with_as_of
from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.config.trusted import check_parts, checked, parse_yaml, plain_config, with_own_places
from tradsys.core.received import one_line
from tradsys.core.run_code import names_its_code

if TYPE_CHECKING:
    from tradsys.research.experiment import Experiment
    from tradsys.research.reproduction import Record


def _stored_experiment(record: "Record", data_folder: str) -> "tuple[DictConfig, Experiment]":
    """The run's config, checked and with this machine's data folder, and the experiment."""
    from tradsys.research.experiment import Experiment

    where = f"reproduce: {record.folder / 'config.yaml'}"
    plain = check_parts(checked(parse_yaml(record.config_yaml, where), where, kept=("paths",)), where)
    config = plain_config(with_own_places(plain, data_folder, where))
    try:
        experiment = Experiment.of(build(config))
        then = record.provenance["data"]
        if not then.get("synthetic") and experiment.data["source"].describe().get("digest") != then["digest"]:
            # the stored bars have changed since: new bars, or the vendor's revisions
            experiment = Experiment.of(build(with_as_of(config, str(record.provenance["created"]), then.get("last"))))
        return config, experiment
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: it does not build with this code ({one_line(error, 400)}); restore it") from error


def work(argv: list[str]) -> None:
    """Reads the run's record, repeats the run and prints the comparison."""
    from tradsys.research.experiment import run
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.reproduction import compare, known_ledger, print_comparison, read_record, seed_ledger

    if len(runs := [a for a in argv if "=" not in a]) > 1:
        raise ConfigError(f"reproduce: {len(runs)} runs, {' and '.join(runs)}; it takes one run; give one")
    settings = as_dict(compose("reproduce", [f"run='{a}'" if a in runs else a for a in argv]))
    record = read_record(Path(str(settings["run"])))
    with names_its_code(f"reproduce: {record.folder}", record.folder, ConfigError):
        config, experiment = _stored_experiment(record, str(settings["paths"]["data"]))
    place = known_ledger(record, str(settings["paths"]["ledger"]), str(settings["paths"]["runs"]))
    with open_run(Path(settings["into"]), "reproduce", record.config_yaml, record.overrides) as folder:
        config.paths = dict(settings["paths"]) | {"ledger": str(folder / "ledger.db"), "cache_gb": 0}  # all of it anew
        known = seed_ledger(record, place, folder / "ledger.db")
        run(experiment, folder, as_dict(config))
    comparison = compare(record, folder, settings["tolerance"], place if known else None)
    print_comparison(comparison, record.folder, folder)
    if comparison.differing:
        sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("reproduce", work)


if __name__ == "__main__":
    main()
