"""What this machine really has, the settings that follow, and whether the configured run can work here.

  python -m tradsys.doctor                               judges what `train` would do by default
  python -m tradsys.doctor +experiment=transformer       any experiment that train takes, same overrides
  python -m tradsys.doctor doctor.processes=4            four fits at a time, as tune may run them
  python -m tradsys.doctor doctor.json=true              for scripts; `overrides` holds the recommendation
  python -m tradsys.doctor doctor.quick=true             a health check: no torch, silent where all is well
  python -m tradsys.doctor notify=true                   sends a test notice
Exit code 0: it can work (warnings included). 2: it cannot; the last line says why and what to do.
"""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.ops.machine.cgroups import read_container

if TYPE_CHECKING:
    from tradsys.ops.machine.preflight import Machine
    from tradsys.ops.machine.requirements import Need


def _probe(config: DictConfig, machine: "Machine", need: "Need") -> "tuple[Machine, list[Any]]":
    """The machine with its device, and recommended settings; loads torch, which is known to fit by now."""
    from tradsys.ops.machine.accelerator import read_accelerator
    from tradsys.ops.machine.recommendations import Rules, choices

    plain, model = as_dict(config), build(config)["model"]  # all of it: a value that no part takes is no run
    machine = dataclasses.replace(machine, accelerator=read_accelerator())
    rules = Rules(**{f.name: plain["doctor"][f.name] for f in dataclasses.fields(Rules)})
    return machine, choices(machine, need, model, plain, rules)


def work(argv: list[str]) -> None:
    """Reads the machine, checks the run, recommends settings, prints."""
    from tradsys.ops.machine.preflight import Fact, as_json, judged, look, print_facts, refuse
    from tradsys.ops.machine.requirements import Need, need_or_why
    from tradsys.ops.notify import Notifier
    from tradsys.reports.terminal import screen

    plain = as_dict(config := compose("doctor", argv))
    if plain["notify"]:
        return screen().print(f"notify    {Notifier.from_environment().send_test()}", markup=False)
    if not isinstance((asked := plain["doctor"])["processes"], int) or asked["processes"] < 1:
        raise ConfigError(f"doctor: processes={asked['processes']!r}; a whole number from 1; set doctor.processes")
    need = need_or_why(plain)
    machine, chosen = look(plain, read_container(), asked["keys"], ntp=not asked["quick"]), list[Any]()
    facts = judged(machine, need, asked["processes"])
    if asked["quick"]:
        return refuse(facts)
    if isinstance(need, Need) and not any(fact.level == "refuse" for fact in facts):
        machine, chosen = _probe(config, machine, need)
        facts = judged(machine, need, asked["processes"], plain["trainer"]["accelerator"] == "gpu")
    overrides, console = [choice.override for choice in chosen if choice.override], screen()
    if asked["json"]:
        report = as_json(machine, facts) | {"choices": [dataclasses.asdict(c) for c in chosen], "overrides": overrides}
        console.out(json.dumps(report, indent=2), highlight=False)
        return refuse(facts)
    print_facts(facts, console)
    if chosen:
        print_facts([Fact(c.name, c.value, c.reason) for c in chosen], console, "setting")
    refuse(facts)
    return console.print(f"verdict   it can work; use: {' '.join(overrides) or 'the config as it is'}", soft_wrap=True)


def main() -> None:
    """Command-line entry point."""
    run_command("doctor", work)


if __name__ == "__main__":
    main()
