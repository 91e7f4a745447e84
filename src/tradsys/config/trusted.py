"""Checks of configuration received from outside: bundles, run folders, studies.

A `_target_` of received configuration is built only where it names, by exact name, a class that is registered for
that very place, and everything is checked before anything is built. Interpolations of received configuration are not
resolved: `${oc.env:NAME}` would put this machine's secrets into pages, `${oc.decode:...}` and resolvers run code.
A user's own command line is not received: it may name any installed class.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from tradsys.config.explain import ConfigError
from tradsys.config.settings_walk import every_setting, every_text
from tradsys.core import received
from tradsys.core.extensions import names_at
from tradsys.core.plain_data import Config
from tradsys.core.received import check_depth, one_line, read_text

TARGET, PARTIAL = "_target_", "_partial_"
MAX_YAML_BYTES = 2 * 2**20
# a value that its run took from the environment
OWN_SECRET = re.compile(r"""\+{0,2}[A-Za-z_][\w.]*=['"]?\$\{oc\.env:[A-Za-z_]\w*\}['"]?""")
PLACE = re.compile(r"^[/~\\]|^[A-Za-z]:[\\/]|(?:^|[/\\])\.\.(?:[/\\]|$)|^[A-Za-z][\w+.-]*:/|\0")  # outside the project
CHOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

_HERE: dict[str, tuple[str, ...]] = {
    "source": (
        "market.store.StoredBars", "market.known.JoinedBars", "market.synthetic.SyntheticMarket",
        "market.synthetic_panel.SyntheticPanel", "market.universe.PooledBars",
    ),
    "stored": ("market.store.StoredBars", "market.universe.PooledBars"),
    "known": (
        "market.known.KnownSource",
        *(f"market.macro.session_series.{n}" for n in ("SessionSeries", "SessionClock")),
        "market.orderbook.values.OrderBookValues", "market.macro.coins.CrossSection", "market.macro.coins.Peers",
        "market.macro.coins.Perpetual", "market.macro.listing.ListingAge",
    ),
    "feature_set": ("features.feature_set.FeatureSet",),
    "labels": (
        "labels.triple_barrier.TripleBarrier", "labels.expansion.RangeExpansion", "labels.explosion.Explosion",
        "labels.forward_return.ForwardReturn", "labels.mean_reached.MeanReached",
    ),
    "events": ("labels.events.ClockEvents", "labels.events.CusumEvents", "market.universe.Members"),
    "split": ("samples.splits.Holdout", "samples.splits.WalkForward", "samples.splits.PurgedKFold"),
    "transforms": ("models.transforms.RobustScaler",),
    "model": (
        "models.baseline.BaseRate", "models.boosting.LightGbm", "models.boosting.Xgboost",
        "models.linear.LogisticRegression", "models.linear.Ridge", "models.sequence.SequenceModel",
        "models.supcon.SupConModel", "models.ensembles.compose.Average", "models.ensembles.compose.SeedAverage",
        "models.ensembles.resampled.SequentialBootstrap",
        "models.ensembles.stacked.Stacked", "models.ensembles.stacked.RegimeWeighted",
        "models.ensembles.per_symbol.PerSymbol", "models.ensembles.regime_pooled.RegimePooled",
    ),
    "probe": ("models.linear.LogisticRegression", "models.probe.LinearProbe"),
    "net": (
        "models.nets.transformer.TransformerEncoder", "models.nets.two_scales.TwoScales",
        "models.nets.cross_asset.CrossAsset", "models.nets.traits.WithTraits",
        "models.nets.tcn.TemporalConvNet", "models.nets.resnet.ResNet",
    ),
    "module": ("models.training.lit.LitClassifier", "models.training.lit_supcon.LitSupCon"),
    "views": ("models.training.augment.Views",),
    "augmentation": tuple(
        f"models.training.augment.{n}" for n in ("FeatureDropout", "Jitter", "Scaling", "TimeMask", "WindowCrop")
    ),
    "trainer": ("models.training.trainer.TrainerSettings",),
    "calibrator": tuple(f"models.calibrators.{n}" for n in ("Identity", "Isotonic", "Temperature")),
    "regime": (
        "models.regime.HmmRegime", "models.market_regime.MarketRegime",
        "models.supervisors.session_regime.SessionRegime", "models.supervisors.supervised.SupervisedRegime",
    ),
    "auditor": ("models.boosting.Xgboost",),
    "profile": ("serving.strategy.Profile",),
    "rule": tuple(f"serving.strategy.{n}" for n in ("ThresholdRule", "BreakEvenRule", "BreakoutRule")),
    "pretrain": tuple(f"models.training.pretraining.{n}" for n in ("MaskedBars", "ContrastInTime")),
    "mask": tuple(f"serving.strategy.{n}" for n in ("RegimeMask", "AuditMask", "AgreementMask")),
    "sizing": ("serving.strategy.ExpansionSizing",),
    "costs": ("portfolio.costs.Costs",),
    "evaluation": ("research.experiment.Evaluation",),
    "sweep": ("research.sweeps.settings.SweepSettings",),
}  # fmt: skip
_REGISTERED: dict[str, set[str]] = {place: {f"tradsys.{name}" for name in names} for place, names in _HERE.items()}
# place of a key, by the place around it; a list or a mapping of parts has the place of each of its members
_INSIDE: dict[str, Mapping[str, str]] = {
    "": {
        "features": "feature_set", "labels": "labels", "events": "events", "split": "split", "years": "split",
        "transforms": "transforms", "model": "model", "baselines": "model", "calibration": "calibrator",
        "regime": "regime", "auditor": "auditor", "strategy": "profile", "costs": "costs", "evaluation": "evaluation",
        "trainer": "trainer", "sweep": "sweep", "data": "data",
    },
    "data": {"source": "source"},
    "source": {"source": "stored", "sources": "stored", "known": "known"},
    "stored": {"sources": "stored"},
    "known": {"source": "stored", "sources": "stored", "perp": "stored", "funding": "known"},
    "feature_set": {"features": "feature", "extra": "feature", "sources": "feature"},
    "model": {
        "members": "model", "model": "model", "scaler": "transforms", "net": "net", "module": "module",
        "trainer": "trainer", "probe": "probe", "pretrain": "pretrain",
        "calibrator": "calibrator", "regime": "regime",
    },
    "net": {"net": "net"},
    "module": {"views": "views"},
    "views": {"augmentations": "augmentation"},
    "regime": {"regime": "regime", "market": "regime", "macro": "regime"},
    "profile": {"rule": "rule", "masks": "mask", "sizing": "sizing"},
    "sweep": {"inner": "split"},
}  # fmt: skip
_PARTIAL_PLACES = ("net", "module")


def register(place: str, cls: type | str) -> None:
    """Allows received configuration to build this one class at one place.

    place: one of `places()`. cls: the class, or its full dotted name, which is imported only when it is built.
    """
    if place not in places():
        raise ConfigError(f"config: no place {place!r} for a class; there are {', '.join(places())}")
    name = cls if isinstance(cls, str) else f"{cls.__module__}.{cls.__qualname__}"
    if place == "feature":
        _EXTRA_FEATURES.add(name)
    else:
        _REGISTERED[place].add(name)


_EXTRA_FEATURES: set[str] = set()


def allowed(place: str) -> frozenset[str]:
    """Full names of the classes that received configuration may build at a place."""
    if place == "feature":
        from tradsys.features import feature_set, registry  # noqa: PLC0415 - polars, which --help does not need

        assert feature_set  # loading it registers every feature of the package
        return frozenset(
            {f"{cls.__module__}.{cls.__qualname__}" for cls in registry.CLASSES.values()}
            | _EXTRA_FEATURES
            | names_at(place)
        )
    return frozenset(_REGISTERED.get(place, ())) | names_at(place)


def places() -> list[str]:
    """Every place that a class can be registered for."""
    return sorted([*_REGISTERED, "feature"])


def checked(config: Any, where: str, *, kept: Sequence[str] = ()) -> Config:
    """The received configuration of a command, checked.

    ConfigError names the first forbidden part. config: plain values as read from a file. where: the artefact. kept: top
    keys that may hold interpolations, because the caller replaces them unresolved.
    """
    if not isinstance(config, dict):
        raise ConfigError(f"{where}: its configuration is a {type(config).__name__}, not a mapping; restore it")
    check_depth(config, where, "restore it", ConfigError)
    for path, key, value in every_setting(config):
        if any("${" in text for text in (key, value) if isinstance(text, str)) and path.split(".")[0] not in kept:
            raise ConfigError(
                f"{where}: {one_line(path, 60)} holds an interpolation, {one_line(value, 60)!r}; those of received "
                "configuration are not resolved; give the value on your own command line"
            )
    _check_value(config, "", "", where)
    return config


def check_parts(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The config of a received run, which has parts where parts belong.

    ConfigError names the first other value in the place of one.
    """
    from tradsys.config.compose import as_dict, compose, conf_folder  # noqa: PLC0415 - as in `_groups`

    for key, own in as_dict(compose("train", [])).items():
        given = config.get(key, own)
        may_be_empty = not own or (conf_folder() / key / "none.yaml").is_file()
        fits = isinstance(given, dict) and bool(given or may_be_empty) if isinstance(own, dict) else True
        if not fits or (key == "question" and not isinstance(given, str)):
            kind = "text" if fits else "a part"
            raise ConfigError(f"{where}: {key} is {one_line(repr(given), 40)}; a run has {kind} there; restore it")
    return config


def checked_overrides(overrides: Sequence[Any], where: str) -> list[str]:
    """Overrides of a received run or study.

    Raises ConfigError for one that does more than choose or set values of conf/. Interpolations, settings of Hydra,
    choices that are paths, and keys that steer how parts are built are refused.
    """
    for override in overrides:
        if line := _wrong_override(override):
            raise ConfigError(
                f"{where}: its override {one_line(override, 80)!r} {line}; received overrides choose among conf/ and "
                "set values; start a new run with your own command line"
            )
    return list(overrides)


def read_overrides(path: Path, skipped: Collection[str] = ()) -> list[str]:
    """Checked overrides of a received overrides.txt, without `skipped` keys."""
    text = read_text(path, "restore it from a copy", ConfigError, MAX_YAML_BYTES)
    lines = [line for line in text.splitlines() if received.override_key(line) not in skipped]
    own = [line for line in lines if OWN_SECRET.fullmatch(line)]  # never composed: the user has to give it again
    checked_overrides([line for line in lines if line not in own], str(path))
    return lines


def parse_yaml(text: str, where: str) -> Any:
    """Plain values of YAML; tags, aliases and deep nesting are refused."""
    return received.parse_yaml(text, where, "restore it from a copy", ConfigError)


def _wrong_override(override: Any) -> str | None:  # noqa: PLR0911 - one return per rule
    if not isinstance(override, str) or len(override) > 10_000:
        return "is no line of text"
    if "${" in override or "$" in override.partition("=")[0]:
        return "holds an interpolation"
    try:
        one = OverridesParser.create().parse_override(override)
        value = one.value() if not one.is_sweep_override() else ...
    except (HydraException, ValueError, RecursionError):
        return "cannot be read"
    key = one.key_or_group
    if value is ...:
        return "gives several values"
    if key.split(".")[0].split("/")[0] in ("hydra", "defaults"):
        return "sets Hydra itself"
    keys = (key, *(inner for _, inner, _ in every_setting(value)))
    words = [word for k in keys for word in re.split(r"[./@:]", str(k))]
    if special := [word for word in words if word.startswith("_")]:
        return f"sets {special[0]!r}, which steers what is built"
    if "/" in key:
        return "names a group by path"
    chosen = value if isinstance(value, list) else [value]
    if key in _groups() and not all(v is None or (isinstance(v, str) and CHOICE.fullmatch(v)) for v in chosen):
        return "chooses by path"
    if line := _wrong_path(key, value):
        return line
    if one.package is not None and not re.fullmatch(r"[A-Za-z0-9_.]+", one.package):
        return "has an odd package"
    return None


def _wrong_path(key: str, value: Any) -> str | None:
    """The error for a received override with a path, which could lead anywhere on this machine."""
    if key.split(".", maxsplit=1)[0] == "paths":
        return f"sets {key}, a path of the machine it was made on; give {key}=... on your own command line"
    for _, text in every_text(value):
        if PLACE.search(text):
            return f"holds the path {one_line(text, 40)!r}; give {key}=... on your own command line"
    return None


def _groups() -> set[str]:
    from tradsys.config.compose import conf_folder  # noqa: PLC0415 - compose imports this module's users

    return {p.name for p in conf_folder().iterdir() if p.is_dir()}


def _check_value(value: Any, place: str, path: str, where: str) -> None:
    """Checks one value at a place; members of a container without `_target_` share its place."""
    if isinstance(value, list):
        for k, inner in enumerate(value):
            _check_value(inner, place, f"{path}[{k}]", where)
        return
    if not isinstance(value, dict):
        return
    is_part = _check_part(value, place, path, where)
    for key, inner in value.items():
        if key not in (TARGET, PARTIAL):
            below = place_inside(place, key, is_part=is_part)
            _check_value(inner, below, f"{path}.{key}" if path else str(key), where)


def place_inside(place: str, key: str, *, is_part: bool) -> str:
    """The place of the value under a key.

    Members of a container that is no part share its place.
    """
    return _INSIDE.get(place, {}).get(key, "nothing") if is_part or place in ("", "data") else place


def _check_part(part: Mapping[str, Any], place: str, path: str, where: str) -> bool:
    """Whether the mapping is a part to build; ConfigError if its place does not allow it."""
    for key in part:
        if not isinstance(key, str) or (key.startswith("_") and key not in (TARGET, PARTIAL)):
            raise ConfigError(f"{where}: {path or 'it'} holds the key {one_line(key, 40)!r}; received parts are plain")
    if TARGET not in part:
        if PARTIAL in part:
            raise ConfigError(f"{where}: {path} holds {PARTIAL} without a class; restore it")
        return False
    name = part[TARGET]
    if not isinstance(name, str) or name not in allowed(place):
        raise ConfigError(
            f"{where}: {path or 'it'} names the class {one_line(name, 80)!r}; a received part names a class registered "
            f"for that place ({', '.join(sorted(allowed(place))) or 'none is'}); set it on your own command line, or "
            "install the package whose entry point tradsys.parts registers it"
        )
    if part.get(PARTIAL, False) is not (place in _PARTIAL_PLACES):
        raise ConfigError(f"{where}: {path} has {PARTIAL}={part.get(PARTIAL)!r} for {name}; restore it from a copy")
    return True


def with_own_places(config: Config, data_folder: str, where: str) -> Config:
    """A received run's config with its stored data in a folder of this machine.

    data_folder: replaces the run's own `paths.data` wherever `data` begins with it. All other paths must lie inside the
    project; ConfigError for an absolute path, `..`, `~` or a URL, which could read or fetch anything here.
    """
    paths = config.get("paths")
    then = paths.get("data") if isinstance(paths, dict) else None

    def placed(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: placed(inner, f"{path}.{key}") for key, inner in value.items()}
        if isinstance(value, list):
            return [placed(inner, f"{path}[{k}]") for k, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        if then and isinstance(then, str) and path.startswith("data."):
            below = value.removeprefix(f"{then}/")
            if below != value and not PLACE.search(below):
                return f"{data_folder}/{below}"
            if value == then and path.endswith(".root"):
                return data_folder
        if PLACE.search(value):
            raise ConfigError(
                f"{where}: {path} holds the path {one_line(value, 60)!r}; a received run reads inside the project; "
                "give paths.data=FOLDER where the run's data lie, or train again with your own command line"
            )
        return value

    return {key: part if key in ("paths", "question") else placed(part, str(key)) for key, part in config.items()}


def built_source(data_config: Any, where: str) -> Any:
    """The source of bars of a received data config."""
    from tradsys.config.compose import build  # noqa: PLC0415 - as above

    source = data_config.get("source") if isinstance(data_config, dict) else None
    if not isinstance(source, dict) or TARGET not in source:
        raise ConfigError(f"{where}: its data config names no source of bars; give data=...")
    checked({"data": data_config}, where)
    return build(plain_config({"source": source}))["source"]


def plain_config(config: Config) -> DictConfig:
    """A checked mapping as an unresolved DictConfig."""
    made = OmegaConf.create(config)
    assert isinstance(made, DictConfig)
    return made
