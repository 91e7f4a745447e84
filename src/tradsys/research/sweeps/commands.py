"""Search, refined search and promotion, as called by the command `tune`."""

import contextlib
import logging
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from tradsys.core.clock import utc_now
from tradsys.core.masking import masked
from tradsys.core.plain_data import Json
from tradsys.core.received import check_folder_name, one_line, override_key
from tradsys.core.runs import code_sha, write_text
from tradsys.reports.sweep.page import write_sweep
from tradsys.research.pipeline.provenance import config_text, logged_in
from tradsys.research.sweeps.contents import check_contents, readable
from tradsys.research.sweeps.report import Rematch, best_of, complete_trials, sweep_report
from tradsys.research.sweeps.search_space import SearchSpace, SweepError, overrides_of
from tradsys.research.sweeps.selection import paired_gain
from tradsys.research.sweeps.side_by_side import work_on
from tradsys.research.sweeps.sweep import IDENTITY, PLACES, Joined, join, storage_of, storage_url
from tradsys.research.sweeps.trial import Compose, Composed
from tradsys.research.sweeps.trial_queue import PLACE, attributes_of
from tradsys.research.sweeps.workers import n_processes, run_workers, wait_for_study, waiting_workers

LOG = logging.getLogger(__name__)
# seeds of a refined search and of its re-evaluation are its parent's plus these, so no seed both selects and evaluates
FRESH = 1000
LEAST_TO_ZOOM = 8
# overrides that belong to the machine where a study was begun: paths, secrets, its environment
LOCAL = re.compile(r"\*\*\*|\$\{|\.\.|[=\[:,'\"][/~]|://")
MOST_HEADER = 10_000  # characters of a line
HEADER = "# Written by tradsys.tune promote; "


# checks the overrides stored in a study, which others may have written; (overrides, where) -> the same overrides
Check = Callable[[Sequence[Any], str], list[str]]


def tune(compose: Compose, overrides: Sequence[str], command: Sequence[str], check: Check) -> tuple[Json, int]:
    """Runs the study to its end with this machine's workers.

    Returns its report and how many workers failed. command: starts one worker process when overrides are added. check:
    of a parent study's overrides, for a refined search. Writes report.html and report.json.
    """
    composed = compose(overrides)
    with _logged(composed, overrides):
        trainer = getattr(composed.experiment.model, "trainer", None)
        device = "cpu" if trainer is None else trainer.device().type
        failed = 0
        with waiting_workers(command, overrides, n_processes(composed.config, device), device) as workers:
            joined = joined_study(compose, overrides, composed, check)
            if workers:
                failed = run_workers(workers)
            else:
                work_on(joined)
        report = sweep_report(joined, _reevaluation(joined, compose, check) if composed.settings.zoom else None)
        write_sweep(report, joined.runner.folder)
    return report, failed


def tune_as_worker(compose: Compose, overrides: Sequence[str], check: Check) -> None:
    """Runs trials of the study that the parent process prepares and reports on."""
    composed = compose(overrides)
    wait_for_study()
    with _logged(composed, overrides):
        work_on(joined_study(compose, overrides, composed, check))


def _logged(composed: Composed, overrides: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Writes a command's records into the study's folder; optuna's own go nowhere but for warnings."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(composed.config["paths"]["runs"]) / "tune" / study_name(composed)
    return logged_in(folder, config_text(composed.config), overrides)


def study_name(composed: Composed) -> str:
    """The study's name; a refined search's is its parent's with `-zoom`."""
    name = composed.config["study_name"]
    check_folder_name("sweep: study", name, SweepError)
    return f"{name}-zoom" if composed.settings.zoom else str(name)


def joined_study(compose: Compose, overrides: Sequence[str], composed: Composed, check: Check) -> Joined:
    """The study of a command, joined.

    For a refined search its narrower space is first built from the parent.
    """
    name = study_name(composed)
    if not composed.settings.zoom:
        return join(name, compose, overrides, composed)
    parent = load_study(composed.config, str(composed.config["study_name"]))
    base = [*_stored_overrides(parent, check, overrides), *_places(overrides)]
    drawn = [overrides_of({p.path: v}) for p in SearchSpace.of(parent.user_attrs["space"]).parameters for v in p.ends]
    check([o for each in drawn for o in each], f"sweep: study {parent.study_name!r}: its space")
    old = compose(base)
    settings = replace(
        old.settings,
        space=zoomed_space(parent, composed.settings.top_share).as_entries(),
        seeds=[seed + FRESH for seed in parent.user_attrs["seeds"]],
        sampler=composed.settings.sampler,
        pruner=composed.settings.pruner,
    )
    config = dict(old.config) | {key: composed.config[key] for key in PLACES if key in composed.config}
    return join(name, compose, base, Composed(old.experiment, settings, config), parent=parent.study_name)


def zoomed_space(parent: optuna.Study, top_share: float) -> SearchSpace:
    """The parent's space around its best trials.

    Raises SweepError with fewer than eight finished ones.
    """
    done = sorted(complete_trials(parent), key=_lower_bound, reverse=True)
    if len(done) < LEAST_TO_ZOOM:
        raise SweepError(
            f"sweep: study {parent.study_name!r} has {len(done)} finished trials; a refined search needs "
            f"{LEAST_TO_ZOOM}; let it run longer first"
        )
    best = done[: max(2, round(top_share * len(done)))]
    return SearchSpace.of(parent.user_attrs["space"]).narrowed([t.params for t in best])


def load_study(config: Mapping[str, Any], name: str) -> optuna.Study:
    """A study of the configured storage.

    Raises SweepError that lists the existing ones. Creates no file.
    """
    url = storage_url(config)
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise SweepError(f"sweep: no study {name!r}, as there is no file {url}; tune first, or give storage=")
    storage = storage_of(config)
    with readable(storage.patience):
        known = storage.patience(lambda: optuna.get_all_study_names(storage.storage))
    if name not in known:
        raise SweepError(
            f"sweep: no study {name!r} in {storage.place}; known are {sorted(known) or 'none'}; give study= or storage="
        )
    with readable(storage.patience):
        study = storage.patience(lambda: optuna.load_study(study_name=name, storage=storage.storage))
        trials = storage.patience(lambda: study.trials)
        # read here, where damage is one line
        check_contents(study, trials)
    if IDENTITY not in study.user_attrs:
        raise SweepError(
            f"sweep: study {name!r} was not made by tradsys.tune; it lacks its data digest; start a new study"
        )
    return study


def _reevaluation(joined: Joined, compose: Compose, check: Check) -> Rematch:
    """Re-evaluates the parent's best and the refined search's best on the same folds under new seeds."""
    runner = joined.runner
    parent = load_study(joined.composed.config, joined.study.user_attrs["parent"])
    seeds = [seed + FRESH for seed in runner.settings.seeds]
    skills = {}
    old, new = best_of(parent), best_of(joined.study)
    for side, trial in (("old", old), ("new", new)):
        drawn = check(overrides_of(trial.params), f"sweep: study {joined.name!r}: trial {trial.number}")
        composed = compose([*runner.base, *drawn])
        folder = runner.folder / "rematch" / f"{side}_{trial.number}"
        skills[side] = runner.skills(runner.fits(composed, runner.dataset(composed), folder, seeds).run())
    gain = paired_gain(skills["new"], skills["old"], runner.settings.confidence)
    return {
        "parent": parent.study_name,
        "seeds": seeds,
        "old": {"place": old.user_attrs[PLACE], "skills": skills["old"].tolist(), "params": old.params},
        "new": {"place": new.user_attrs[PLACE], "skills": skills["new"].tolist(), "params": new.params},
        "gain": gain,
    }


def _stored_overrides(study: optuna.Study, check: Check, own: Sequence[str]) -> list[str]:
    """The overrides that a study was begun with, checked; those of keys that `own` sets are replaced."""
    local = {override_key(o) for o in study.user_attrs["overrides"] if isinstance(o, str) and LOCAL.search(o)}
    given = {override_key(o): o for o in own if override_key(o) in local}
    kept = [o for o in study.user_attrs["overrides"] if not isinstance(o, str) or override_key(o) not in given]
    if hidden := [o for o in kept if isinstance(o, str) and "***" in o]:
        raise SweepError(
            f"sweep: study {study.study_name!r} was begun with {hidden[0]!r}, whose secret no file keeps; start a new "
            "study with '${oc.env:NAME}' in its place"
        )
    return [*check(kept, f"sweep: study {study.study_name!r}"), *given.values()]


def promote(compose: Compose, overrides: Sequence[str], folder: Path, check: Check) -> Path:
    """Writes the winner's model config; returns the path.

    The file is `folder`/<name>.yaml, with provenance in its header. The winner has the highest lower bound, or is
    the trial slot
    that `trial=` names. Raises SweepError where its bound is not above the base rate (unless `force`), or where an
    existing file of that name was not written by promote.
    """
    config = compose(overrides).config
    study = load_study(config, str(config["study_name"]))
    trial = _chosen(study, config["trial"])
    its = attributes_of(trial)
    bound = its.get("lower_bound")
    if not config["force"] and not (bound is not None and bound > 0):
        raise SweepError(
            f"sweep: trial {its[PLACE]} has the lower bound {bound}; a promoted model beats the base "
            "rate, whose skill is 0; give force=true to promote it for research all the same"
        )
    name = str(config["name"] or study.study_name)
    check_folder_name("sweep: name", name, SweepError)
    path = folder / f"{name}.yaml"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(HEADER):
        raise SweepError(f"sweep: {path} exists and was not written by promote; nothing is overwritten; give name=...")
    values = check(overrides_of(trial.params), f"sweep: study {study.study_name!r}: trial {trial.number}")
    stored = _stored_overrides(study, check, overrides)
    composed_config = compose([*stored, *_places(overrides), *values]).config
    around = [o for o in [*stored, *values] if not _of_model(o)]
    lines = [
        f"{HEADER}train with: python -m tradsys.train {shlex.join(['model=' + path.stem, *around])}",
        f"# study: {study.study_name}, trial: {its[PLACE]} (number {trial.number}), "
        f"date: {utc_now():%Y-%m-%d}, code: {code_sha()}, study begun on code: {study.user_attrs['code_sha']}",
        f"# mean skill: {its['mean_skill']!r}, lower bound: {its['lower_bound']!r}, seeds: {study.user_attrs['seeds']}",
        f"# data digest: {study.user_attrs[IDENTITY]['data_digest']}",
    ]
    text = yaml.safe_dump(
        masked(portable(composed_config["model"], composed_config["seed"])), sort_keys=False, allow_unicode=True
    )
    write_text(path, "\n".join(one_line(line, MOST_HEADER) for line in lines) + "\n" + text)
    return path


# settings of the trainer that belong to the machine, not to the model
MACHINE = (
    "accelerator",
    "devices",
    "strategy",
    "num_nodes",
    "progress_bar",
    "loggers",
    "checkpoint_every_steps",
    "step",
)


def portable(part: Any, seed: int, key: str = "") -> Any:
    """A model config with the run's own seed and machine settings.

    Resolved; the rest as in the trial.
    """
    if isinstance(part, dict) and key == "trainer":
        return {k: f"${{trainer.{k}}}" if k in MACHINE else v for k, v in part.items()}
    if isinstance(part, dict):
        return {k: portable(v, seed, k) for k, v in part.items()}
    if isinstance(part, list):
        return [portable(v, seed) for v in part]
    return "${seed}" if key == "seed" and part == seed else part


def _chosen(study: optuna.Study, place: int | None) -> FrozenTrial:
    if place is None:
        return best_of(study)
    found = [t for t in complete_trials(study) if t.user_attrs[PLACE] == int(place)]
    if not found:
        raise SweepError(f"sweep: study {study.study_name!r} has no finished trial {place}; give another trial=")
    return found[0]


def _lower_bound(trial: FrozenTrial) -> float:
    assert trial.state == TrialState.COMPLETE
    return float(attributes_of(trial)["lower_bound"])


def _of_model(override: str) -> bool:
    """Whether a promoted model config already contains it, or train does not have the key."""
    return override.lstrip("+").partition("=")[0].split(".")[0] in ("model", "sweep", "trainer", *PLACES)


def _places(overrides: Sequence[str]) -> list[str]:
    return [o for o in overrides if o.lstrip("+").partition("=")[0].split(".")[0] in PLACES]
