"""Settings of a comparison: the variants named in a study, and the variants composed and built."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tradsys.core.errors import TradsysError
from tradsys.core.protocols import Splitter
from tradsys.core.received import check_folder_name
from tradsys.core.runs import digest_json
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.held_out_symbols import HeldOutSymbols, TestedSymbols

LOG = logging.getLogger(__name__)
BACKENDS = ("loky", "threading", "sequential", "ray")
VARIANT_KEYS = ("overrides", "seeds", "against")
# of a model's config: keys that change no number (output, folders, threads); `seed` is set by the fit
UNDECIDING = ("progress_bar", "loggers", "checkpoint_every_steps", "step", "workdir", "n_threads", "seed")


@dataclass(frozen=True)
class VariantChoice:
    """One variant as configured: overrides, seeds, and its rival.

    The rival is None for the reference itself. mean_of: the variants whose probabilities it averages, empty for a
    variant with fits of its own.
    """

    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    against: str | None
    mean_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class ComparisonSettings:
    """A study: its question, its variants, folds and seeds.

    variants: name -> overrides on top of the command line's (a list, inner lists are spliced), or a mapping of
    `overrides`, `seeds`, such as one seed for a deterministic model, and `against`, another variant to compare it
    with. A variant with `mean_of`, another variant, instead of overrides is the mean of that variant's calibrated
    probabilities over its seeds: an ensemble without a fit. Of several variants it is the mean of their means, with
    equal weights. arms: deprecated name of variants.
    reference: the variant that all others are compared with.
    common: overrides of all variants, below the command line's. sets: named lists that variants refer to by
    interpolation. n_jobs: fits at once, of one thread each. backend: of joblib; `ray` uses the cluster that ray finds.
    n_draws, confidence: of every interval. held_out: symbols that no fold trains or validates on and that alone are
    tested. tested: symbols of validation and tests, while training uses all that a variant's data hold;
    empty for all. stacked: whether the fits of a variant train their nets as stacks, which moves a probability by no
    more than 1e-5: None where that is faster, True wherever it is possible, False never.
    Raises TradsysError out of range.
    """

    name: str
    question: str
    reference: str
    variants: Mapping[str, Any]
    split: Splitter
    seeds: Sequence[int]
    common: Sequence[str] = ()
    sets: Mapping[str, Sequence[str]] | None = None
    n_jobs: int = 1
    backend: str = "loky"
    n_draws: int = 2000
    confidence: float = 0.95
    held_out: Sequence[str] = ()
    tested: Sequence[str] = ()
    stacked: bool | None = None
    arms: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.arms:
            LOG.warning(
                "study %r: `arms` is the deprecated name of `variants`, removed in 2.0; write study.variants", self.name
            )
            object.__setattr__(self, "variants", {**(self.variants or {}), **self.arms})
        check_folder_name("study: name", self.name, TradsysError)
        for name in self.variants:
            check_folder_name(f"study {self.name!r}: variant", name, TradsysError)
        if len(self.variants) < 2:
            raise TradsysError(
                f"study {self.name!r}: variants {list(self.variants)}; a comparison needs two at least; add one to "
                "study.variants"
            )
        if self.reference not in self.variants:
            raise TradsysError(
                f"study {self.name!r}: the reference {self.reference!r} is not among the variants "
                f"{list(self.variants)}; set study.reference to one of them"
            )
        if self.n_jobs < 1 or self.n_draws < 100 or not 0 < self.confidence < 1:
            raise TradsysError(
                f"study {self.name!r}: n_jobs={self.n_jobs}, n_draws={self.n_draws}, confidence={self.confidence}; at "
                "least 1 job and 100 draws, and a confidence between 0 and 1; fix them in conf/study"
            )
        if self.held_out and self.tested:
            raise TradsysError(
                f"study {self.name!r}: held_out={list(self.held_out)} with tested={list(self.tested)}; held-out "
                "symbols are the tested ones; set study.tested=[] or study.held_out=[]"
            )
        if self.backend not in BACKENDS:
            raise TradsysError(
                f"study {self.name!r}: backend {self.backend!r}; it must be one of {', '.join(BACKENDS)}; set "
                "study.backend"
            )
        assert self.choices  # reads every variant once, so that a bad one is refused here

    @property
    def splitter(self) -> Splitter:
        """`split`, restricted to the held-out or the tested symbols.

        Held-out ones are left out of training; tested ones alone are in the tests.
        """
        if self.held_out:
            return HeldOutSymbols(self.split, tuple(self.held_out))
        return TestedSymbols(self.split, tuple(self.tested)) if self.tested else self.split

    @property
    def tested_symbols(self) -> tuple[str, ...]:
        """Symbols whose rows are tested; empty for all."""
        return tuple(self.held_out or self.tested)

    @property
    def choices(self) -> dict[str, VariantChoice]:
        """Every variant's overrides and seeds."""
        return {name: self._choice(name, given) for name, given in self.variants.items()}

    def _choice(self, name: str, given: Any) -> VariantChoice:
        given = given if isinstance(given, Mapping) else {"overrides": given}
        unknown = sorted(set(given) - set(VARIANT_KEYS))
        if (source := given.get("mean_of")) is not None:
            return self._mean(name, source, given)
        if unknown or "overrides" not in given:
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} has the keys {sorted(given)}; it takes "
                f"{', '.join(VARIANT_KEYS)}, of which overrides must be there; set study.variants"
            )
        seeds = tuple(self.seeds if given.get("seeds") is None else given["seeds"])
        if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(s, int) and s >= 0 for s in seeds):
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} has the seeds {list(seeds)}; at least one, each once, "
                "integers from 0; set study.seeds"
            )
        against = given.get("against") or self.reference
        if against not in self.variants or (given.get("against") == name):
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} is compared with {against!r}; it must be another one of "
                f"{list(self.variants)}; set study.variants"
            )
        overrides = tuple(_spliced(given["overrides"], f"study {self.name!r}: variant {name!r}"))
        return VariantChoice(overrides, seeds, None if name == self.reference else against)

    def _mean(self, name: str, of: Any, given: Mapping[str, Any]) -> VariantChoice:
        """The choice of a variant that averages the seeds of another one, or of several."""
        sources = [of] if isinstance(of, str) or not isinstance(of, Sequence) else list(of)
        fitted = {key for key, one in self.variants.items() if not (isinstance(one, Mapping) and "mean_of" in one)}
        wrong = sorted(set(given) - {"mean_of", "against"})
        if wrong or not sources or not set(sources) <= fitted or len(set(sources)) < len(sources):
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} is the mean of {of!r} and has the keys {sorted(given)}; it "
                "names another variant that has fits of its own, or several, each once, and may have `against`; set "
                "study.variants"
            )
        against = given.get("against") or self.reference
        if name == self.reference or against not in self.variants or against == name:
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} is the mean of {of!r} and compared with {against!r}; a mean is "
                f"compared with another one of {list(self.variants)}; set study.variants"
            )
        fits = [self._choice(source, self.variants[source]) for source in sources]
        if len(fits) == 1 and len(fits[0].seeds) < 2:
            raise TradsysError(
                f"study {self.name!r}: variant {name!r} averages {of!r}, which has the seeds {list(fits[0].seeds)}; a "
                "mean needs two; set study.seeds"
            )
        return VariantChoice(fits[0].overrides, fits[0].seeds, against, tuple(sources))


def _spliced(overrides: Any, where: str) -> Iterator[str]:
    """The overrides of a list and of the lists in it; None is skipped."""
    if isinstance(overrides, str):
        yield overrides
    elif overrides is None or isinstance(overrides, Mapping) or not isinstance(overrides, Iterable):
        raise TradsysError(
            f"{where}: overrides {overrides!r}; they must be a list of key=value, [] for none; set study.variants"
        )
    else:
        for one in overrides:
            yield from _spliced(one, where)


@dataclass(frozen=True, eq=False)
class Variant:
    """A variant ready to run.

    experiment: built from `config`, which is resolved. Other fields: see `VariantChoice`.
    """

    name: str
    experiment: Experiment
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    against: str | None
    mean_of: tuple[str, ...] = ()

    def digest(self, panel: str) -> str:
        """Digest of what determines a fit.

        Its samples and folds, its model, scaler and calibration.
        """
        decides = {key: self.config[key] for key in ("model", "transforms", "calibration")}
        if (decay := self.config.get("time_decay", 1.0)) != 1.0:  # fits without one keep their names
            decides["time_decay"] = decay
        return digest_json([panel, _deciding(decides)])


def _deciding(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _deciding(v) for k, v in value.items() if k not in UNDECIDING}
    return [_deciding(v) for v in value] if isinstance(value, list | tuple) else value
