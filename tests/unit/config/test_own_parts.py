"""A part from outside that cannot be called, or answers with another kind, is one line before any fit, everywhere."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf
from torch import nn

from tests.conftest import walk_bars
from tradsys.config.compose import ConfigError, build, compose
from tradsys.core.errors import DataError, TradsysError, TrainingError
from tradsys.features.feature_set import FeatureSet
from tradsys.features.registry import register
from tradsys.market.bars import mark_gaps
from tradsys.models.calibrators import Identity
from tradsys.models.ensembles.compose import Calibrated
from tradsys.research.pipeline.bundle_export import check_bundled_parts
from tradsys.research.pipeline.dataset import labels_of, load_bars
from tradsys.research.pipeline.dataset_cache import DatasetCache
from tradsys.research.pipeline.settings import Experiment
from tradsys.samples.splits import folds_of
from tradsys.serving.own_rules import result_of

HERE = __name__
SMALL = ["+experiment=demo", "data.n_bars=400"]
COMMANDS = {
    "train": SMALL, "tune": [*SMALL, "sweep=logistic"], "compare": ["+study=seeds"], "audit": SMALL, "diagnose": [],
    "daily": ["+experiment=foundry"],
}  # fmt: skip


def part(methods, **fields):
    """A class with these methods: what each takes, and what it returns."""

    def method(signature, result):
        made = {"result": result}
        exec(f"def call({signature}):\n    if isinstance(result, Exception): raise result\n    return result", made)
        return made["call"]

    return type("Odd", (), {name: method(*how) for name, how in methods.items()} | fields)


CARD = {"kind": "Odd", "horizon_bars": 6, "atr_bars": 14, "classes": ["a", "b"]}
SIZES = {"horizon_bars": 6, "atr_bars": 14}
UNCALLABLE = {
    "labels": [
        part({"label": ("self, bars", 0), "card": ("self", CARD)}),
        part({"label": ("self", 0), "card": ("self", CARD)}),
        part({"label": ("self, bars, side, more", 0), "card": ("self", CARD)}),
        part({"label": ("self, *, bars, side=None", 0), "card": ("self", CARD)}),
        part({"label": ("bars, side=None", 0), "card": ("self", CARD)}), part({"card": ("self", CARD)}),
        part({"label": ("self, bars, side=None", 0), "card": ("self, more", CARD)}),
    ],
    "events": [part({"mask": ("self", 0)}), part({})],
    "calibration": [part({"fit": ("self, p", 0), "apply": ("self, p", 0)})],
    "regime": [part({"fit": ("self", 0), "predict_proba": ("self, t, r", 0)}, lookback=1)],
    "model": [part({"fit": ("self, train", 0), "predict_proba": ("self, t, r", 0)}, lookback=1)],
}  # fmt: skip
ODD = [(place, k) for place, classes in UNCALLABLE.items() for k in range(len(classes))]


def named(monkeypatch, cls):
    """The class under a name that a configuration can give."""
    monkeypatch.setitem(globals(), "Odd", cls)
    return f"{HERE}.Odd"


@pytest.mark.parametrize(("place", "k"), ODD, ids=map(str, ODD))
def test_a_method_that_cannot_be_called_is_refused_with_what_it_is_called_with(monkeypatch, place, k):
    config = compose("train", SMALL)
    config[place] = {"_target_": named(monkeypatch, UNCALLABLE[place][k])}
    with pytest.raises(ConfigError, match=rf"config: {place}: Odd\.\w+\(.*\) is what is called here, and .*; give it"):
        build(config)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it(monkeypatch, command):
    config = compose(command, COMMANDS[command])
    OmegaConf.set_struct(config, False)
    config.labels = {"_target_": named(monkeypatch, UNCALLABLE["labels"][0]), "horizon_bars": 6}
    if command == "compare":
        del config.study
    with pytest.raises(ConfigError, match=r"config: labels: Odd\.label"):
        build(config)


def test_what_stands_deeper_is_found_too(monkeypatch):
    config = compose("train", SMALL)
    config.features.extra = [{"_target_": named(monkeypatch, part({"expr": ("self, bars", 0)}))}]
    with pytest.raises(ConfigError, match=r"config: features\.extra\.0: Odd\.expr\(\)"):
        build(config)
    config = compose("train", SMALL)
    config.strategy.sniper.rule = {"_target_": f"{HERE}.Odd"}
    with pytest.raises(ConfigError, match=r"config: strategy\.sniper\.rule: Odd\.side\(view, bundle\)"):
        build(config)
    config = compose("train", SMALL)
    config.data.source = {"_target_": f"{HERE}.Odd"}
    with pytest.raises(ConfigError, match=r"config: data\.source: Odd\.bars\(\)"):
        build(config)


class Net(nn.Module):
    def __init__(self, n_features, n_classes, lookback, *, shape=(3, 2), width=8):
        super().__init__()
        self.shape, self.n_features, self.n_classes, self.lookback = shape, n_features, n_classes, lookback

    def forward(self, window_NTF):
        return window_NTF[:, 0, : self.shape[1]][: self.shape[0]]


class Renamed(Net):
    def __init__(self, features, n_classes, lookback, *, width=8):
        super().__init__(features, n_classes, lookback)


def test_a_net_takes_what_the_data_decide_and_gives_scores():
    config = compose("train", [*SMALL, "model=transformer"])
    config.model.net = {"_target_": f"{HERE}.Net", "_partial_": True, "width": 8}
    build(config)
    config.model.net._target_ = f"{HERE}.Renamed"
    with pytest.raises(ConfigError, match=r"config: model\.net: Renamed\(n_features=..., n_classes=..., lookback"):
        build(config)
    config.model.net = {"_target_": f"{HERE}.Net", "_partial_": True, "shape": [3, 4]}
    with pytest.raises(TradsysError, match=r"forward\(\) returned \[3, 4\] for windows \[3, .*\] and 2 classes"):
        build(config)


def experiment(monkeypatch=None, **parts):
    made = build(compose("train", [*SMALL, "model=logistic", "strategy=[]"]))
    return Experiment.of({**made, **parts})


GOOD = {"label": ("self, bars, side=None", None), "card": ("self", CARD)}


@pytest.mark.parametrize("result", [None, 3, KeyError("no luck")])
def test_an_answer_of_another_kind_and_an_error_of_its_own_are_one_line_each(result):
    words = "raised KeyError" if isinstance(result, Exception) else f"returned {result}"
    with pytest.raises(TrainingError, match=words):
        experiment(labels=part(GOOD | {"card": ("self", result)}, **SIZES)())
    bars = mark_gaps(walk_bars(300), None)
    with pytest.raises(TrainingError, match=words):
        labels_of(experiment(labels=part(GOOD | {"label": ("self, bars, side=None", result)}, **SIZES)()), bars)
    with pytest.raises(TrainingError, match=words):
        DatasetCache(bars).mask(part({"mask": ("self, bars", result)})())
    with pytest.raises(TrainingError, match=words):
        next(folds_of(part({"split": ("self, samples", result)})(), None))
    source = part({"bars": ("self", result), "describe": ("self", {})})()
    with pytest.raises(TrainingError, match=words):
        load_bars(experiment(data={"source": source, "max_gap_minutes": None}))
    source = part({"bars": ("self", bars), "describe": ("self", result)})()
    with pytest.raises(TrainingError, match=words):
        load_bars(experiment(data={"source": source, "max_gap_minutes": None}))


def test_bars_of_a_source_from_outside_are_bars():
    source = part({"bars": ("self", walk_bars(50).drop("volume")), "describe": ("self", {})})()
    with pytest.raises(DataError, match="volume"):
        load_bars(experiment(data={"source": source, "max_gap_minutes": None}))


def test_a_splitter_without_folds_or_with_other_things_is_refused():
    samples = np.arange(3)
    with pytest.raises(DataError, match="made no fold of 3 samples"):
        list(folds_of(part({"split": ("self, samples", ())})(), samples))
    with pytest.raises(DataError, match="returned a int; it must return Fold"):
        list(folds_of(part({"split": ("self, samples", (1,))})(), samples))


def test_an_error_of_our_own_part_keeps_its_traceback(monkeypatch):
    made = experiment()
    monkeypatch.setattr(type(made.labels), "label", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        labels_of(made, mark_gaps(walk_bars(300), None))


@register
@dataclass(frozen=True)
class OddFeature:
    named: object = "odd"
    memory: object = 1
    value: object = None

    @property
    def name(self):
        return self.named

    @property
    def warmup(self):
        return self.memory

    def expr(self):
        return pl.col("close") if self.value is None else pl.col("nowhere") if self.value == "column" else self.value


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"named": 3}, "a name that is no text"), ({"memory": "x"}, "warm-up 'x'"), ({"memory": -1}, "warm-up -1"),
     ({"memory": 1.5}, "warm-up 1.5"), ({"value": 3}, "its expr returned 3"),
     ({"value": "column"}, "cannot be computed")],
)  # fmt: skip
def test_a_feature_has_a_text_for_its_name_rows_of_warm_up_and_an_expression(settings, words):
    with pytest.raises(TradsysError, match=words):
        FeatureSet([OddFeature(**settings)], max_gap_minutes=None).table(walk_bars(50))


def test_models_and_regimes_say_what_is_asked_of_them():
    fit = {"fit": ("self, train, valid", None), "predict_proba": ("self, table, rows", None)}
    for lookback in (None, "a", 0, 1.5):
        with pytest.raises(TrainingError, match=r"model: Odd\.lookback is"):
            experiment(model=part(fit, lookback=lookback)())
    for names in (None, 3, ("calm", "calm"), ("calm", 3)):
        with pytest.raises(TrainingError, match=r"regime: Odd\.names is"):
            experiment(regime=part(fit, lookback=1, names=names)())
    with pytest.raises(TradsysError, match=r"no bundle can hold regime=.*Odd, .*compare"):
        check_bundled_parts(experiment(regime=part(fit, lookback=1, names=("calm", "wild"))()))


@pytest.mark.parametrize(
    ("fitted", "words"),
    [(None, "its fit returned None"), (3, "returned 3"), ("text", "its predict_proba returned 'text'"),
     (np.full(20, 0.5), r"returned \[20\] for 20 rows")],
)  # fmt: skip
def test_a_fitted_model_is_one_and_gives_a_row_of_shares_for_each_row(fitted, words):
    predicts = fitted is not None and not isinstance(fitted, int)
    done = (
        part({"fit": ("self, a, b", 1), "predict_proba": ("self, t, r", fitted)}, lookback=1)() if predicts else fitted
    )
    model = part({"fit": ("self, train, valid", done), "predict_proba": ("self, t, r", 0)}, lookback=1)()
    rows = type("Rows", (), {"table": None, "rows": np.arange(20), "__len__": lambda _self: 20})()
    with pytest.raises(TrainingError, match=words):
        Calibrated(model, Identity()).fit(rows, rows)


@pytest.mark.parametrize(
    "found", [None, np.zeros(7, np.int8), np.full(4, 0.3), np.full(4, 2), np.full(4, "a"), ["a"] * 4]
)  # fmt: skip
def test_a_rule_gives_a_side_for_each_row(found):
    view = type("View", (), {"probability": np.full(4, 0.5)})()
    with pytest.raises(TrainingError, match="its side returned"):
        result_of(part({"side": ("self, view, bundle", found)})(), "side", view, None)
    good = np.array([1, 0, -1, 0], np.int8)
    assert result_of(part({"side": ("self, view, bundle", good)})(), "side", view, None) is good
    for wrong in (np.full(4, 2.0), np.zeros(4), np.full(4, np.nan)):
        with pytest.raises(TrainingError, match=r"must return a share in \(0, 1\]"):
            result_of(part({"size": ("self, view", wrong)})(), "size", view)
    with pytest.raises(TrainingError, match="true or false"):
        result_of(part({"allows": ("self, view", np.ones(4))})(), "allows", view)


def test_data_without_a_key_that_features_read_are_one_line():
    config = compose("train", SMALL)
    OmegaConf.set_struct(config, False)
    del config.data.market_symbol
    with pytest.raises(ConfigError, match=r"data\.market_symbol.* not found"):
        build(config)
