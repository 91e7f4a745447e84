"""The research flow on one page: bars, features, labels, samples, models, bundle, strategies, report."""

from pathlib import Path

from tradsys.core.plain_data import Config, Json
from tradsys.evidence.controls.drift import check_rows
from tradsys.research.pipeline.bundle_export import check_bundled_parts, export_bundle
from tradsys.research.pipeline.dataset import load_bars, prepare
from tradsys.research.pipeline.dataset_cache import DatasetCache, ValueStore
from tradsys.research.pipeline.requirements import check_horizons, check_stages
from tradsys.research.pipeline.settings import Evaluation, Experiment, Timings
from tradsys.research.pipeline.training import fit

__all__ = ["Evaluation", "Experiment", "run"]


def run(experiment: Experiment, folder: Path, config: Config) -> Json:
    """Runs the research flow.

    Writes bundle, metrics, predictions, trades and report into `folder`. Returns the report as one JSON-safe dict, the
    same that report.html and `tradsys.report` are drawn from.
    """
    from tradsys.research.evaluation import evaluate_run  # noqa: PLC0415 - `Evaluation` alone needs no database

    check_stages(experiment)
    check_horizons(experiment, config.get("horizons") or [])
    check_bundled_parts(experiment)
    timings = Timings()
    with timings.stage("bars"):
        bars = load_bars(experiment)
    with timings.stage("features and labels"):
        prepared = prepare(experiment, bars, DatasetCache(bars, ValueStore.of(config["paths"])))
    check_rows(len(prepared.train), len(prepared.test))
    fitted = fit(experiment, prepared, folder / "checkpoints", timings)
    with timings.stage("bundle"):
        bundle = export_bundle(experiment, prepared, fitted, folder / "bundle", config)
    return evaluate_run(experiment, prepared, fitted, bundle, folder, config, timings)
