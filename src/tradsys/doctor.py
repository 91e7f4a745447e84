"""Checks whether the configured run fits this machine, and recommends settings.

  python -m tradsys.doctor                               checks what `train` would do by default
  python -m tradsys.doctor +experiment=transformer       any experiment that train takes, same overrides
  python -m tradsys.doctor doctor.processes=4            four fits at a time, as tune may run them
  python -m tradsys.doctor doctor.json=true              for scripts; `overrides` holds the recommendation
  python -m tradsys.doctor doctor.quick=true             a health check: no torch, no output unless a check fails
  python -m tradsys.doctor notify=true                   sends a test notice
Exit code 0: the run can work here (warnings included). 2: it cannot; the last line gives the reason and the next step.
"""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.ops.machine.cgroups import read_container

if TYPE_CHECKING:
    from tradsys.ops.machine.preflight import Machine
    from tradsys.ops.machine.requirements import ResourceEstimate


def _probe(config: DictConfig, machine: "Machine", estimate: "ResourceEstimate") -> "tuple[Machine, list[Any]]":
    """The machine with its device, and recommended settings; loads torch, whose memory was checked before."""
    from tradsys.ops.machine.accelerator import read_accelerator
    from tradsys.ops.machine.recommendations import Rules, recommend

    plain, model = as_dict(config), build(config)["model"]  # all of it: a value that no part takes is no run
    machine = dataclasses.replace(machine, accelerator=read_accelerator())
    rules = Rules(**{f.name: plain["doctor"][f.name] for f in dataclasses.fields(Rules)})
    return machine, recommend(machine, estimate, model, plain, rules)


def work(argv: list[str]) -> None:
    """Reads the machine, checks the run, recommends settings and prints all of it."""
    from tradsys.ops.machine.preflight import MachineCheck, as_json, check_results, print_results, read_machine, refuse
    from tradsys.ops.machine.requirements import ResourceEstimate, estimate_or_error
    from tradsys.ops.notify import Notifier
    from tradsys.reports.terminal import screen

    plain = as_dict(config := compose("doctor", argv))
    if plain["notify"]:
        return screen().print(f"notify    {Notifier.from_environment().send_test()}", markup=False)
    if not isinstance((own := plain["doctor"])["processes"], int) or own["processes"] < 1:
        raise ConfigError(f"doctor: processes={own['processes']!r}; a whole number from 1; set doctor.processes")
    estimate = estimate_or_error(plain)
    machine, chosen = read_machine(plain, read_container(), own["keys"], ntp=not own["quick"]), list[Any]()
    results = check_results(machine, estimate, own["processes"])
    if own["quick"]:
        return refuse(results)
    if isinstance(estimate, ResourceEstimate) and not any(result.level == "refuse" for result in results):
        machine, chosen = _probe(config, machine, estimate)
        results = check_results(machine, estimate, own["processes"], plain["trainer"]["accelerator"] == "gpu")
    wanted, console = [one.override for one in chosen if one.override], screen()
    if own["json"]:
        found = {"choices": [dataclasses.asdict(one) for one in chosen], "overrides": wanted}
        console.out(json.dumps(as_json(machine, results) | found, indent=2), highlight=False)
        return refuse(results)
    print_results(results, console)
    if chosen:
        print_results([MachineCheck(c.name, c.value, c.reason) for c in chosen], console, "setting")
    refuse(results)
    return console.print(f"verdict   it can work; use: {' '.join(wanted) or 'the config as it is'}", soft_wrap=True)


def main() -> None:
    """Command-line entry point."""
    run_command("doctor", work)


if __name__ == "__main__":
    main()
