"""Sets up a sweep: checks space and budget, creates or joins the study."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna

from tradsys.core.clock import utc_now
from tradsys.core.errors import CombinationError, nearest
from tradsys.core.masking import masked_text
from tradsys.core.plain_data import Json
from tradsys.core.received import override_key, read_json
from tradsys.core.runs import code_sha, digest_json, write_json
from tradsys.research.sweeps.contents import check_contents, readable
from tradsys.research.sweeps.search_space import SearchSpace, SweepError, leaves, overrides_of
from tradsys.research.sweeps.storage import StudyStorage, open_storage
from tradsys.research.sweeps.trial import Compose, Composed, TrialRunner, n_epochs, refused
from tradsys.research.sweeps.trial_queue import Budget, TrialQueue
from tradsys.research.sweeps.workers import HERE, is_worker

LOG = logging.getLogger(__name__)
IDENTITY = "identity"
UUID = "uuid"
UUID_SECONDS = 10  # longest wait for a new study's UUID, which its creator writes next
OWNER = "study.json"  # in a study's folder: the study's identity
# keys of places and budgets, which do not affect results
PLACES = (
    *(
        "paths",
        "study",
        "study_name",
        "storage",
        "n_trials",
        "hours",
        "money",
        "price_per_hour",
        "n_workers",
        "trials_per_gpu",
    ),
    *(
        "heartbeat_seconds",
        "grace_seconds",
        "storage_patience_seconds",
        "max_retries",
        "trial",
        "name",
        "resume",
        "force",
        "logger",
    ),
)
# parts of the experiment that no trial fits
UNUSED = ("question", "sweep", "baselines", "strategy", "auditor", "regime", "evaluation", "costs", "agent")


@dataclass(frozen=True, eq=False)
class Joined:
    """A study this process works on."""

    name: str
    study: optuna.Study
    queue: TrialQueue
    runner: TrialRunner
    composed: Composed
    n_side_by_side: int = 1

    @property
    def storage(self) -> StudyStorage:
        """Storage of the study."""
        return self.queue.storage


def join(name: str, compose: Compose, base: Sequence[str], composed: Composed, parent: str | None = None) -> Joined:
    """Creates the study, or joins the one of this name.

    After comparing data, space and config. base: overrides that compose the study's config. composed: the effective
    settings, a refined search's included. parent: the study that this one refines. Raises SweepError where anything is
    wrong, before any model is fitted.
    """
    config, settings = composed.config, composed.settings
    space = settings.parsed_space
    budget = budget_of(config, settings.most_trials)
    if not is_worker():  # its parent has checked the same space
        checked(space, compose, base)
    storage = storage_of(config)
    folder = Path(config["paths"]["runs"]) / "tune" / name
    lookback = max([composed.experiment.lookback, *_longest(space)])
    runner = TrialRunner(name, compose, base, settings, space, folder, lookback, storage.patience)
    with kept_if_joined(runner.place(composed)):
        return _joined(name, base, composed, parent, (space, budget, storage, runner))


@contextlib.contextmanager
def kept_if_joined(place: Path) -> Iterator[None]:
    """Keeps a dataset in the study's folder only if the command joins it."""
    was_there = place.exists()
    try:
        yield
    except SweepError:
        if not was_there:
            shutil.rmtree(place, ignore_errors=True)
        raise


def _joined(
    name: str,
    base: Sequence[str],
    composed: Composed,
    parent: str | None,
    parts: tuple[SearchSpace, Budget, StudyStorage, TrialRunner],
) -> Joined:
    """`join` from its dataset on."""
    config, settings, (space, budget, storage, runner) = composed.config, composed.settings, parts
    folder, lookback = runner.folder, runner.lookback
    dataset = runner.dataset(composed)
    if len(dataset.folds) * len(settings.seeds) < 2 or ("stability" in settings.objectives and len(dataset.folds) < 2):
        raise SweepError(
            f"sweep: {len(dataset.folds)} fold(s) x {len(settings.seeds)} seed(s); a spread needs two fits, stability "
            "two folds; raise sweep.inner.n_folds or name more sweep.seeds"
        )
    most_steps = len(dataset.folds) * len(settings.seeds) * n_epochs(composed.experiment)
    with readable(storage.patience):
        study, uuid = _opened(name, storage, len(settings.objectives), settings.pruner_of(most_steps))
    about = {
        "data_digest": dataset.data_digest,
        "space_digest": settings.digest(space),
        "config_digest": digest_json([base_digest(config), lookback]),
    }
    extra = {
        "overrides": own_overrides(base),
        "space": space.as_entries(),
        "seeds": list(settings.seeds),
        "parent": parent,
    }
    _agree(
        study,
        storage,
        about,
        extra | {"code_sha": code_sha(), "begun": utc_now().isoformat(timespec="seconds")},
    )
    own_folder(folder, name, uuid)
    runner = replace(runner, uuid=uuid)
    queue = TrialQueue(study, storage, budget, int(config["max_retries"]))
    return Joined(name, study, queue, runner, composed, n_side_by_side(config))


def _opened(name: str, storage: StudyStorage, n_objectives: int, pruner: Any) -> tuple[optuna.Study, str]:
    """The study of this name and its UUID, which its creator wrote; the name for a study without one."""

    def made(load_if_exists: bool) -> optuna.Study:
        return optuna.create_study(
            study_name=name,
            storage=storage.storage,
            directions=["maximize"] * n_objectives,
            pruner=pruner,
            load_if_exists=load_if_exists,
        )

    try:
        study = storage.patience(partial(made, False))
        storage.patience(lambda: study.set_user_attr(UUID, uuid4().hex))
    except optuna.exceptions.DuplicatedStudyError:
        study = storage.patience(partial(made, True))
    deadline = time.monotonic() + UUID_SECONDS
    while True:
        about = storage.patience(lambda: study.user_attrs)
        if UUID in about or IDENTITY in about or time.monotonic() > deadline:
            return study, str(about.get(UUID, name))
        time.sleep(0.1)


def own_folder(folder: Path, name: str, uuid: str) -> None:
    """Marks a study's folder as this study's.

    Raises SweepError where another study of the same name has it.
    """
    owner = folder / OWNER
    if not owner.is_file():
        write_json(owner, {"name": name, UUID: uuid})
        return
    other = read_json(owner, "restore it from a copy", SweepError).get(UUID)
    if other != uuid:
        raise SweepError(
            f"sweep: {folder} belongs to another study of the name {name!r} (UUID {str(other)[:8]}, this one "
            f"{uuid[:8]}), kept in another storage; give study= another name, or another paths.runs"
        )


def storage_url(config: Mapping[str, Any]) -> str:
    """URL of the studies' storage.

    By default a SQLite file in the folder of all studies, as for refined searches.
    """
    default = Path(config["paths"]["runs"]) / "tune" / "studies.db"
    return str(config["storage"] or f"sqlite:///{default}")


def storage_of(config: Mapping[str, Any]) -> StudyStorage:
    """The configured storage, opened; created if new."""
    return open_storage(
        storage_url(config),
        heartbeat=int(config["heartbeat_seconds"]),
        grace=int(config["grace_seconds"]),
        patience_seconds=float(config["storage_patience_seconds"]),
    )


def budget_of(config: Mapping[str, Any], most_trials: int | None = None) -> Budget:
    """The configured budget, of at most so many trials as a grid has points.

    Raises SweepError where it has no sense.
    """
    if config["max_retries"] < 0:
        raise SweepError(f"sweep: max_retries={config['max_retries']}; it counts further attempts from 0; fix it")
    limits = {name: config[name] for name in ("n_trials", "hours", "money", "price_per_hour")}
    if most_trials is not None:
        configured = limits["n_trials"]
        limits["n_trials"] = most_trials if configured is None else min(most_trials, configured)
    return Budget(**limits)


def n_side_by_side(config: Mapping[str, Any]) -> int:
    """Number of trials this machine runs at once.

    The process that started this one sets it.
    """
    return int(os.environ.get(HERE, config["n_workers"] or 1))


def base_digest(config: Mapping[str, Any]) -> str:
    """Digest of what the study's trials share.

    The config without places, budgets and parts that are not fitted.
    """
    kept = {key: value for key, value in config.items() if key not in (*PLACES, *UNUSED)}
    kept["trainer"] = {k: v for k, v in kept["trainer"].items() if k not in ("progress_bar", "loggers")}
    model = dict(kept["model"])
    return digest_json(kept | {"model": {k: v for k, v in model.items() if k != "trainer"}})


def checked(space: SearchSpace, compose: Compose, base: Sequence[str]) -> None:
    """SweepError for a path that the config lacks.

    Composes and builds the space's corners before any trial.
    """
    configs: dict[str, set[str]] = {}
    for parameter in space.parameters:
        reaching = overrides_of(space.reaching(parameter))
        key = " ".join(reaching)
        if key not in configs:
            with refused():
                configs[key] = leaves(compose([*base, *reaching]).config)
        if parameter.path not in configs[key]:
            raise SweepError(
                f"sweep: unknown config path {parameter.path!r}; {nearest(parameter.path, configs[key])}; a space "
                "names keys of the composed config; set sweep.space or choose the model= it is for"
            )
    for corner in space.corners():
        # combinations that are impossible only together fail in their own trials, not in the study
        with contextlib.suppress(CombinationError), refused():
            compose([*base, *overrides_of(corner)])


def _longest(space: SearchSpace) -> list[int]:
    """The longest windows that trials may draw."""
    searched = [p for p in space.parameters if p.path.endswith(".lookback")]
    return [int(max(float(v) for v in p.ends if v is not None)) for p in searched]


def own_overrides(base: Sequence[str]) -> list[str]:
    """The overrides that affect results, without secrets.

    Overrides of places and budgets are left out, too.
    """
    return [masked_text(o) for o in base if override_key(o).split(".")[0] not in PLACES]


def _agree(study: optuna.Study, storage: StudyStorage, about: dict[str, str], extra: Json) -> None:
    """Stores the study's identity, or compares it with the stored one; SweepError where they differ."""
    with readable(storage.patience):
        storage.patience(lambda: check_contents(study, study.trials))
    if IDENTITY not in storage.patience(lambda: study.user_attrs):
        for key, value in extra.items():
            storage.patience(partial(study.set_user_attr, key, value))
        storage.patience(lambda: study.set_user_attr(IDENTITY, about))
    check_identity(study, storage, about)
    begun, here = storage.patience(lambda: study.user_attrs)["code_sha"], extra["code_sha"]
    if begun != here:
        LOG.warning("study %r was begun on code %s, this is %s; its trials are of both", study.study_name, begun, here)


def check_identity(study: optuna.Study, storage: StudyStorage, about: Mapping[str, str]) -> None:
    """SweepError that names what differs: data, space or config."""
    found = storage.patience(lambda: study.user_attrs)[IDENTITY]
    for key, value in about.items():
        if found[key] != value:
            raise SweepError(
                f"sweep: study {study.study_name!r} has {key.replace('_', ' ')} {found[key][:12]}, this command "
                f"{value[:12]}; all trials of a study share data, space and config; join with the same ones, or give "
                "study= another name"
            )
