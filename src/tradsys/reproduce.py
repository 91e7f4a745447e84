"""Does a training run again from its stored config, data and seeds, and compares every number.

python -m tradsys.reproduce                               the latest training run
python -m tradsys.reproduce runs/train/<run>              that run; run=... is the same
python -m tradsys.reproduce runs/train/<run> into=/tmp/again

Exit code 0: every number came out again. 1: some did not; the table says which, and what else differs: code, data,
packages, machine or chance. 2: there is nothing to reproduce.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from omegaconf import DictConfig, OmegaConf

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command

if TYPE_CHECKING:
    from tradsys.research.experiment import Experiment
    from tradsys.research.reproduction import Record


def _stored(record: "Record") -> "tuple[DictConfig, Experiment]":
    """The run's resolved config and what it builds with today's code."""
    from tradsys.research.experiment import Experiment

    try:
        config = OmegaConf.create(record.config_yaml)
        if not isinstance(config, DictConfig):
            raise ConfigError("it is no mapping")
        return config, Experiment.of(build(config))
    except (KeyError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"reproduce: the config of {record.folder} does not build with this code ({error}); it was made by "
            f"{record.provenance['code_sha']}; check that commit out"
        ) from error


def work(argv: list[str]) -> None:
    """Reads the record, runs it again, prints the comparison."""
    from tradsys.research.experiment import run
    from tradsys.research.pipeline.provenance import open_run
    from tradsys.research.reproduction import compare, print_comparison, read_record, seed_ledger

    if len(runs := [a for a in argv if "=" not in a]) > 1:
        raise ConfigError(f"reproduce: {len(runs)} runs, {' and '.join(runs)}; it does one at a time; give one")
    asked = as_dict(compose("reproduce", [f"run='{a}'" if a in runs else a for a in argv]))
    record = read_record(Path(str(asked["run"])))
    config, experiment = _stored(record)
    place = config.paths.ledger
    with open_run(Path(asked["into"]), "reproduce", record.config_yaml, record.overrides) as folder:
        config.paths.ledger = str(folder / "ledger.db")
        known = seed_ledger(record, place, folder / "ledger.db")
        run(experiment, folder, as_dict(config))
    comparison = compare(record, folder, asked["tolerance"], place if known else None)
    print_comparison(comparison, record.folder, folder)
    if comparison.differing:
        sys.exit(1)


def main() -> None:
    """Command-line entry point."""
    run_command("reproduce", work)


if __name__ == "__main__":
    main()
