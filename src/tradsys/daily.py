"""Daily runs of a panel: prices, quality, features, labels, models, gates, report; one trading day at a time.

python -m tradsys.daily run                                      the last closed trading day of the data's calendar
python -m tradsys.daily run date=2022-12-01 until=2022-12-30     back-fill; completed days are skipped
python -m tradsys.daily report date=2022-12-30                   writes a report again
python -m tradsys.daily status                                   completed days, outdated reports, running processes
python -m tradsys.daily run when=post                            the runs that are due now, missed ones included
python -m tradsys.daily schedule                                 timers: 08:15 and 16:45 New York time
python -m tradsys.daily preflight                                checks data, disk, calendar, model and lock first
python -m tradsys.daily health                                   JSON for monitors; exit code 1 where a check fails
python -m tradsys.daily clean clean.dry_run=false                removes old partitions, never the last good report
python -m tradsys.daily evaluate                                 walk-forward over years; returns after costs, and SPY
python -m tradsys.daily signals +experiment=panel               the panel's signals table as parquet

Exit code 2 where a gate stops the day: nothing is published, and the previous report is marked as outdated.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.config.environment import read_environment

if TYPE_CHECKING:
    from tradsys.ops.daily.stages import DailySettings


def _settings(argv: list[str]) -> "tuple[DailySettings, dict]":
    """Settings with one experiment per horizon, and the built parts of the first."""
    from tradsys.ops.daily.stages import DailySettings, check_horizons
    from tradsys.research.pipeline.settings import Experiment

    named = [o.partition("=")[2] for o in argv if o.lstrip("+").startswith("experiment=")]
    overrides = argv if named else [*argv, "+experiment=foundry"]
    if named and not any(o.startswith("name=") for o in argv):
        overrides = [*overrides, f"name={named[-1]}"]
    config = compose("daily", overrides)
    check_horizons(argv, config.horizons)
    configs, parts = {}, {}
    for bars in config.horizons or [config.labels.horizon_bars]:
        one = config.copy()
        one.labels.horizon_bars = bars
        configs[f"{bars}d"], parts[f"{bars}d"] = as_dict(one), build(one)
    first = next(iter(parts.values()))
    settings = DailySettings(
        experiments={name: Experiment.of(each) for name, each in parts.items()},
        configs=configs,
        folder=Path(config.folder),
        overrides=tuple(argv),
        **{key: first[key] for key in ("name", "gates", "plan", "retrain_every", "recent_sessions", "drift_rows")},
    )
    return settings, first


def work(argv: list[str]) -> None:
    """Composes the configuration, runs the verb and prints the result."""
    from tradsys.ops.daily import commands

    verb, rest = (argv[0], argv[1:]) if argv else ("", [])
    if verb not in commands.VERBS:
        raise ConfigError(
            f"daily: {verb or 'nothing'!r} is no verb; the verbs are {', '.join(commands.VERBS)}; see --help"
        )
    read_environment()
    settings, parts = _settings(rest)
    commands.VERBS[verb](settings, parts | {"argv": rest})


def main() -> None:
    """Command-line entry point."""
    run_command("daily", work)


if __name__ == "__main__":
    main()
