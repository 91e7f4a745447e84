"""Runs the variants of a study over folds and seeds, and writes one paired table: what beats what, by how much.

  python -m tradsys.compare +study=losses                       on the synthetic market
  python -m tradsys.compare +study=losses data=btc_hourly       on real bars from the store
  python -m tradsys.compare +study=seeds study.n_jobs=4         four fits at once, of one thread each
  python -m tradsys.compare +study=losses study.seeds=[0,1,2,3]  resumes: only the fits of the new seed are run

Skill is 1 - log-loss of the calibrated probability / log-loss of the training base rate. Variants that answer one
question are evaluated on the same samples of the same purged folds. An interrupted comparison resumes where it stopped.
"""

from typing import TYPE_CHECKING

from omegaconf import open_dict

from tradsys.config.compose import ConfigError, as_dict, build, compose, run_command
from tradsys.core.errors import TradsysError

if TYPE_CHECKING:
    from tradsys.research.comparisons.settings import ComparisonSettings, Variant, VariantChoice


def _variant(name: str, choice: "VariantChoice", settings: "ComparisonSettings", argv: list[str]) -> "Variant":
    """Composes one variant; what its overrides get wrong is reported with its name."""
    from tradsys.research.comparisons.settings import Variant
    from tradsys.research.pipeline.settings import Experiment

    try:
        config = compose("compare", [*settings.common, *argv, *choice.overrides])
        with open_dict(config):
            del config["study"]
        return Variant(
            name, Experiment.of(build(config)), as_dict(config), choice.seeds, choice.against, choice.mean_of
        )
    except (ConfigError, TradsysError, ValueError) as error:
        kind = type(error) if isinstance(error, TradsysError) else ConfigError
        raise kind(f"compare: variant {name!r} of study {settings.name!r}: {error}") from error


def work(argv: list[str]) -> None:
    """Composes every variant, runs the missing fits and prints the table."""
    from tradsys.ops.tracking.contents import comparison_record
    from tradsys.ops.tracking.tracker import open_tracker
    from tradsys.reports.comparison.page import print_comparison
    from tradsys.research.comparisons.comparison import compare_study

    overrides = [f"+{a}" if a.startswith("study=") else a for a in argv]
    config = compose("compare", overrides)
    as_dict(config)  # a missing value is reported before anything is built
    settings = build(config)["study"]
    variants = [_variant(name, choice, settings, overrides) for name, choice in settings.choices.items()]
    plain = as_dict(compose("compare", [*settings.common, *overrides]))
    tracker = open_tracker(plain)
    table = compare_study(variants, settings, plain, overrides)
    tracker.log_finished("compare", plain, comparison_record(table))
    print_comparison(table)


def main() -> None:
    """Command-line entry point."""
    run_command("compare", work)


if __name__ == "__main__":
    main()
