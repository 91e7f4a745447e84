"""The arms of a comparison as a study names them, and as the command hands them over: composed and built."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tradsys.core.errors import TradsysError
from tradsys.core.protocols import Splitter
from tradsys.core.runs import digest_json
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.held_out_symbols import HeldOutSymbols

BACKENDS = ("loky", "threading", "sequential", "ray")
ARM_KEYS = ("overrides", "seeds", "against")
# of a model's config: what is shown, where it is kept and how many threads work change no number; `seed` is the cell's
UNDECIDING = ("progress_bar", "loggers", "checkpoint_every_steps", "workdir", "n_threads", "seed")


@dataclass(frozen=True)
class ArmChoice:
    """How an arm differs: Hydra overrides, its seeds, and whom it is compared with (None for the reference itself).

    mean_of: the arm whose seeds' probabilities it averages, None for an arm with fits of its own.
    """

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    against: str | None
    mean_of: str | None = None


@dataclass(frozen=True)
class ComparisonSettings:
    """A study: its question, its arms, and on which folds and seeds they meet.

    arms: name -> overrides on top of the command line's (a list, inner lists are spliced), or a mapping of `overrides`,
    `seeds`, such as one seed for a model without chance, and `against`, another arm to be compared with. reference: the
    arm that all others are compared with. An arm that gives `mean_of`, another arm, instead of overrides is the mean of
    that arm's calibrated probabilities over its seeds: an ensemble that costs no fit.
    common: overrides of all arms, below the command line's. sets: named lists that arms refer to by interpolation.
    n_jobs: cells at once, of one thread each. backend: of joblib; `ray` takes the cluster that ray finds. n_draws,
    confidence: of every interval. held_out: symbols that no fold trains or validates on and that alone are tested.
    Raises TradsysError out of range.
    """

    name: str
    question: str
    reference: str
    arms: Mapping[str, Any]
    split: Splitter
    seeds: Sequence[int]
    common: Sequence[str] = ()
    sets: Mapping[str, Sequence[str]] | None = None
    n_jobs: int = 1
    backend: str = "loky"
    n_draws: int = 2000
    confidence: float = 0.95
    held_out: Sequence[str] = ()

    def __post_init__(self) -> None:
        if odd := [name for name in (self.name, *self.arms) if not re.fullmatch(r"[\w.-]+", str(name), re.ASCII)]:
            raise TradsysError(
                f"study {self.name!r}: the name {odd[0]!r}; folders are called so: letters, digits, . - and _; fix it"
            )
        if len(self.arms) < 2:
            raise TradsysError(
                f"study {self.name!r}: arms {list(self.arms)}; a comparison needs two at least; add one to study.arms"
            )
        if self.reference not in self.arms:
            raise TradsysError(
                f"study {self.name!r}: the reference {self.reference!r} is not among the arms {list(self.arms)}; "
                "name one of them with study.reference="
            )
        if self.n_jobs < 1 or self.n_draws < 100 or not 0 < self.confidence < 1:
            raise TradsysError(
                f"study {self.name!r}: n_jobs={self.n_jobs}, n_draws={self.n_draws}, confidence={self.confidence}; at "
                "least 1 job and 100 draws, and a confidence between 0 and 1; fix them in conf/study"
            )
        if self.backend not in BACKENDS:
            raise TradsysError(f"study {self.name!r}: backend {self.backend!r}; it is one of {', '.join(BACKENDS)}")
        assert self.choices  # reads every arm once, so that a bad one is refused here

    @property
    def splitter(self) -> Splitter:
        """`split`, without the held-out symbols in training where there are some."""
        return HeldOutSymbols(self.split, tuple(self.held_out)) if self.held_out else self.split

    @property
    def choices(self) -> dict[str, ArmChoice]:
        """Every arm's overrides and seeds."""
        return {name: self._choice(name, given) for name, given in self.arms.items()}

    def _choice(self, name: str, given: Any) -> ArmChoice:
        given = given if isinstance(given, Mapping) else {"overrides": given}
        unknown = sorted(set(given) - set(ARM_KEYS))
        if (source := given.get("mean_of")) is not None:
            return self._mean(name, source, given)
        if unknown or "overrides" not in given:
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} has the keys {sorted(given)}; it takes {', '.join(ARM_KEYS)}, of "
                "which overrides must be there; set study.arms"
            )
        seeds = tuple(self.seeds if given.get("seeds") is None else given["seeds"])
        if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) and s >= 0 for s in seeds):
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} has the seeds {list(seeds)}; at least one, each once, whole and "
                "not negative; set study.seeds"
            )
        against = given.get("against") or self.reference
        if against not in self.arms or (given.get("against") == name):
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} is compared with {against!r}; it must be another one of "
                f"{list(self.arms)}; set study.arms"
            )
        overrides = tuple(_spliced(given["overrides"], f"study {self.name!r}: arm {name!r}"))
        return ArmChoice(overrides, seeds, None if name == self.reference else against)

    def _mean(self, name: str, source: Any, given: Mapping[str, Any]) -> ArmChoice:
        """The choice of an arm that averages another one's seeds."""
        wrong = sorted(set(given) - {"mean_of", "against"})
        of = self.arms.get(source)
        chained = isinstance(of, Mapping) and "mean_of" in of
        if wrong or of is None or chained or name == self.reference:
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} is the mean of {source!r} and has the keys {sorted(given)}; it "
                "names another arm that has fits of its own, may say `against`, and is no reference; set study.arms"
            )
        fits = self._choice(str(source), of)
        if len(fits.seeds) < 2:
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} averages {source!r}, which has the seeds {list(fits.seeds)}; a "
                "mean needs two; set study.seeds"
            )
        against = given.get("against") or self.reference
        if against not in self.arms:
            raise TradsysError(
                f"study {self.name!r}: arm {name!r} is compared with {against!r}; it is one of {list(self.arms)}"
            )
        return ArmChoice(fits.overrides, fits.seeds, against, str(source))


def _spliced(overrides: Any, where: str) -> Iterator[str]:
    """The overrides of a list and of the lists in it; None is no override."""
    if isinstance(overrides, str):
        yield overrides
    elif overrides is None or isinstance(overrides, Mapping) or not isinstance(overrides, Iterable):
        raise TradsysError(f"{where}: overrides {overrides!r}; a list of key=value; [] for none")
    else:
        for one in overrides:
            yield from _spliced(one, where)


@dataclass(frozen=True, eq=False)
class Arm:
    """An arm ready to run. experiment: what it builds. config: the resolved config behind it. The rest: `ArmChoice`."""

    name: str
    experiment: Experiment
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    against: str | None
    mean_of: str | None = None

    def digest(self, panel: str) -> str:
        """Of what decides a cell: its samples and folds, its model, scaler and calibration."""
        decides = {key: self.config[key] for key in ("model", "transforms", "calibration")}
        if (decay := self.config.get("time_decay", 1.0)) != 1.0:  # cells without one keep their names
            decides["time_decay"] = decay
        return digest_json([panel, _deciding(decides)])


def _deciding(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _deciding(v) for k, v in value.items() if k not in UNDECIDING}
    return [_deciding(v) for v in value] if isinstance(value, list | tuple) else value
