"""Damaged files of every kind: refused in one line, or harmless; no traceback of a library, no abort, no lie.

TRADSYS_FUZZ sets the mutations per kind (60 here; 2,000 for a release). A file is damaged and its digest made right
again, as a forger or a bad disk before sealing would: what still loads must give finite probabilities.
"""

import functools
import json
import os
import random
import warnings
from datetime import UTC, datetime

import lightgbm
import numpy as np
import optuna
import pytest
import torch
import xgboost
from onnx import TensorProto, helper

from tradsys.config.compose import ConfigError
from tradsys.config.trusted import checked, checked_overrides, parse_yaml
from tradsys.core.errors import TradsysError
from tradsys.core.received import plain_texts, read_json
from tradsys.models.boosting import LightGbm, Xgboost
from tradsys.models.calibrators import Isotonic, Temperature, calibrator_from_json
from tradsys.models.linear import LogisticRegression
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.regime import HmmRegime
from tradsys.models.training.checkpoints import kept_state, read_checkpoint
from tradsys.models.transforms import RobustScaler, with_fitted
from tradsys.research.pipeline.trial_ledger import LedgerEntry, TrialLedger, check_ledger
from tradsys.serving.card import verified_card
from tradsys.serving.ensemble import read_logistic

N = int(os.environ.get("TRADSYS_FUZZ", "60"))
ABOUT_STUDY = {
    "overrides": ["model=logistic"], "space": {}, "seeds": [1], "code_sha": "x", "begun": "2026-01-01T00:00:00+00:00",
    "identity": {"data_digest": "0", "space_digest": "0", "config_digest": "0"},
}  # fmt: skip
NAMES = ("a", "b", "c", "d")
ROWS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
SWAPS = (b"null", b"[]", b"{}", b'""', b"-1", b"0", b"1e999", b"99999999999999999999", b"NaN", b"true", b'"\x1b[31m"',
         b"[" * 2000, b'{"a":' * 2000, b"\x00", b"\xff\xfe")  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One mutation: bytes flipped, cut, zeroed, inserted, doubled or swapped for what is hard to read."""
    size = len(content)
    at = draw.randrange(size)
    upto = min(size, at + draw.choice((1, 2, 8, 64, 1024, size)))
    if draw.randrange(9) > 6:
        return _swapped(content, draw)
    ways = (
        content[:at],
        content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
        content[:at] + bytes(upto - at) + content[upto:],
        content[:at] + draw.randbytes(upto - at) + content[upto:],
        content[:at] + content[upto:],
        content[:at] + content[at:upto] + content[at:],
        draw.choice((b"", b"null", b"[]", b"{}", b"0", draw.randbytes(64), b"[" * 5000, bytes(size))),
    )
    return draw.choice(ways)


def _swapped(content: bytes, draw: random.Random) -> bytes:
    """A word or number of a text replaced; of a binary file a few bytes."""
    edges = [k for k, byte in enumerate(content) if byte in b' ,:=[]{}\n"'] or [0, len(content)]
    k = draw.randrange(len(edges))
    begin, end = edges[k] + 1, edges[min(k + 1, len(edges) - 1)]
    return content[:begin] + draw.choice(SWAPS) + content[max(begin, end) :]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A sound file of every kind, and what reads it."""
    folder = tmp_path_factory.mktemp("sound")
    up = (ROWS[:, 0] > 0).astype(int)
    trees = lightgbm.train({"objective": "binary", "num_leaves": 4, "min_data_in_leaf": 5, "verbosity": -1},
                           lightgbm.Dataset(ROWS, label=up), num_boost_round=3)  # fmt: skip
    stored = lightgbm.Booster(model_str=trees.model_to_string())
    boosted = xgboost.train({"objective": "binary:logistic", "max_depth": 2}, xgboost.DMatrix(ROWS, label=up), 3)
    fitted = {"names_": NAMES, "n_classes_": 2}
    with_fitted(LightGbm(), {"booster_": stored, **fitted}).save(folder / "lightgbm.txt")
    with_fitted(Xgboost(), {"booster_": boosted, **fitted}).save(folder / "xgboost.json")
    (folder / "regime.json").write_text(json.dumps(_regime().to_json()))
    scaler = with_fitted(RobustScaler(), {"names_": NAMES, "center_": np.zeros(4), "scale_": np.ones(4)})
    line = {"names_": NAMES, "coef_": np.ones((1, 4)), "intercept_": np.zeros(1)}
    logistic = with_fitted(LogisticRegression(), line)
    (folder / "logistic.json").write_text(json.dumps({"scaler": scaler.to_json(), "model": logistic.to_json()}))
    bent = with_fitted(Isotonic(), {"x_": np.array([0.1, 0.9]), "y_": np.array([0.2, 0.8])})
    (folder / "isotonic.json").write_text(json.dumps(bent.to_json()))
    warm = with_fitted(Temperature(), {"temperature_": 1.5, "bias_": np.array([0.1, -0.1])})
    (folder / "temperature.json").write_text(json.dumps(warm.to_json()))
    (folder / "model.onnx").write_bytes(_graph().SerializeToString())
    state = {"state_dict": {"w": torch.ones(3)}, "global_step": 1, "callbacks": {"k": {"fingerprint": "x"}}}
    torch.save(state, folder / "last.ckpt")
    (folder / "report.json").write_text(json.dumps({"run": "x", "models": [{"name": "m", "metrics": {"n": 1}}]}))
    (folder / "config.yaml").write_text("seed: 1\nmodel:\n  _target_: tradsys.models.linear.Ridge\n  alpha: 1.0\n")
    (folder / "overrides.txt").write_text("model=logistic\ndata.n_bars=3000\nstrategy=[sniper,reckless]\n")
    _ledger(folder / "ledger.db")
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{folder / 'studies.db'}")
    for key, value in ABOUT_STUDY.items():
        study.set_user_attr(key, value)
    return folder


def _regime():
    state = {"center_": np.zeros(2), "scale_": np.ones(2), "startprob_": np.array([0.5, 0.5]), "loglik_": 1.0,
             "transmat_": np.array([[0.9, 0.1], [0.1, 0.9]]), "means_": np.zeros((2, 2)), "n_rows_": 9,
             "covars_": np.stack([np.eye(2), 2 * np.eye(2)])}  # fmt: skip
    return with_fitted(HmmRegime(columns=("a", "b"), n_states=2, names=("calm", "wild")), state)


def _graph():
    window = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["N", 1, 4])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("score", "probability")]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], ROWS[:4, :2].ravel().tolist())
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [-1, 4])
    nodes = [
        helper.make_node("Reshape", ["window", "s"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["score"]),
        helper.make_node("Identity", ["score"], ["probability"]),
    ]
    graph = helper.make_graph(nodes, "g", [window], outputs, [weights, shape])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _ledger(path):

    day, end = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC)
    for k in range(3):
        entry = LedgerEntry(
            "train", f"s{k}", "d", day, end, measure="return", periods_per_year=365, code_sha="x", who="m"
        )
        TrialLedger(path).append(entry, np.random.default_rng(k).normal(size=40))


def _sane(proba):
    assert np.isfinite(proba).all()
    assert proba.min() >= -1e-6
    assert proba.max() <= 1 + 1e-6


def load_lightgbm(path):
    model = LightGbm.load(path)
    _sane(model.trees_.proba(ROWS))
    _sane(model.booster().predict(ROWS))


def load_xgboost(path):
    model = Xgboost.load(path)
    _sane(model.trees_.proba(ROWS))
    _sane(model.booster().predict(xgboost.DMatrix(ROWS)))


def load_regime(path):
    _sane(HmmRegime.from_json(read_json(path, "fix")).filter(ROWS[:, :2]))


def load_logistic(path):
    assert read_logistic(path).lookback >= 1


def load_calibrator(path):
    _sane(calibrator_from_json(read_json(path, "fix")).apply(np.array([[0.3, 0.7], [0.6, 0.4]])))


def load_onnx(path):
    model = OnnxModel.load(path)
    if (model.lookback, model.n_features) == (1, 4):
        with np.errstate(all="ignore"):
            model.run(ROWS[:, None, :])


def load_checkpoint(path):
    kept_state(read_checkpoint(path))


def load_report(path):
    plain_texts(read_json(path, "fix", ConfigError))


def load_config(path):
    checked(parse_yaml(path.read_bytes().decode(errors="replace"), "config"), "config")


def load_overrides(path):
    checked_overrides(path.read_bytes().decode(errors="replace").splitlines(), "overrides")


def load_ledger(path):

    check_ledger(str(path))
    span = datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 12, 31, tzinfo=UTC)
    found = [t.series_digest for t in TrialLedger(path).trials("d", *span)]
    # what still passes is the whole record: the damage lies where nothing is stored
    assert len(found) == 3


LOADERS = {
    "lightgbm.txt": load_lightgbm, "xgboost.json": load_xgboost, "regime.json": load_regime,
    "logistic.json": load_logistic, "isotonic.json": load_calibrator, "temperature.json": load_calibrator,
    "model.onnx": load_onnx, "last.ckpt": load_checkpoint, "report.json": load_report, "config.yaml": load_config,
    "overrides.txt": load_overrides, "ledger.db": load_ledger,
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_refused_in_one_line_or_harmless(name, files, tmp_path):
    sound = (files / name).read_bytes()
    LOADERS[name](files / name)
    said = []
    for seed in range(N):
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(damaged(sound, random.Random(f"{name} {seed}")))
        said += refusal(functools.partial(LOADERS[name], path), f"{name}, mutation {seed}")
        for left in tmp_path.glob(f"{seed}-{name}*"):
            left.unlink()
    assert len(said) > N / 4
    assert not [line for line in said if "\n" in line or "\x1b" in line]


def refusal(load, what):
    """The message of a refusal; none where the file still loads; anything else fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load()
    except TradsysError as refused:
        return [str(refused)]
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return []


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "1", '{"format": 1}', "[" * 9999, '{"format": NaN}', "\x00"])
def test_a_card_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(TradsysError, match=r"card\.json|bundle"):
        verified_card(tmp_path)
