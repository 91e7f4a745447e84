"""Overrides of a resumed training run: its stored ones, and those given with `resume=`."""

import logging
from pathlib import Path

from tradsys.config.compose import as_dict, compose
from tradsys.config.explain import ConfigError, leaves
from tradsys.config.trusted import read_overrides
from tradsys.core.received import override_key

LOG = logging.getLogger(__name__)
# allowed with resume=: settings that are used after the fits; any other would change a fit
CHANGEABLE = (
    "costs", "strategy", "levels", "question", "paths", "data.source.root", "trainer.progress_bar", "trainer.loggers",
    "trainer.checkpoint_every_steps", "trainer.step", "evaluation.n_draws", "evaluation.confidence",
    "evaluation.n_permutations", "evaluation.min_trades", "evaluation.n_placebos", "evaluation.cpcv", "logger",
)  # fmt: skip


def resumed_overrides(folder: Path, own: list[str]) -> list[str]:
    """The run's overrides with `own` after them.

    ConfigError names a key of `own` that would change what is fitted.
    """
    if not (folder / "overrides.txt").is_file():
        raise ConfigError(f"train: resume={folder} holds no overrides.txt; give a folder that train started")
    own = [o for o in own if override_key(o) != "resume"]
    given = {override_key(o) for o in own}
    stored = read_overrides(folder / "overrides.txt", skipped=given)
    kept = [o for o in stored if override_key(o) not in given]
    if hidden := [o for o in kept if "***" in o or "${oc.env:" in o]:
        raise ConfigError(
            f"train: resume={folder}: its override {hidden[0]!r} holds a secret, which no file keeps; give it again "
            f"with resume=: {override_key(hidden[0])}=..., best as '${{oc.env:NAME}}'"
        )
    if own:
        kept = _with_known_groups(folder, kept, own)
        before, after = (dict(leaves(as_dict(compose("train", o)))) for o in (_without_hidden(stored), [*kept, *own]))
        changed = sorted(k for k in before | after if before.get(k, ...) != after.get(k, ...))
        if fixed := [k for k in changed if not any(f"{k}.".startswith(f"{c}.") for c in CHANGEABLE)]:
            raise ConfigError(
                f"train: resume={folder}: {', '.join(fixed[:3])} would change fits that are done; resume= allows "
                f"changes of {', '.join(CHANGEABLE)}; start a new run for {fixed[0]}={after.get(fixed[0])}"
            )
    return [*kept, *own]


def _with_known_groups(folder: Path, kept: list[str], own: list[str]) -> list[str]:
    """`kept` without keys of a group that `own` chooses anew and whose new choice does not know them."""
    try:
        compose("train", [*kept, *own])
    except ConfigError as error:
        chosen = tuple(f"{override_key(o)}." for o in own)
        below = [o for o in kept if override_key(o).startswith(chosen)]
        if not below:
            raise ConfigError(f"train: resume={folder}: {error}") from error
        kept = [o for o in kept if o not in below]
        compose("train", [*kept, *own])
        LOG.warning("train: resume=%s: its %s belonged to another choice of the group and is left out", folder, below)
    return kept


def _without_hidden(overrides: list[str]) -> list[str]:
    return [o for o in overrides if "***" not in o and "${" not in o]
