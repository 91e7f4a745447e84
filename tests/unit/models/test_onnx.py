import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tradsys.core.errors import BundleError
from tradsys.core.tables import FeatureTable, Samples
from tradsys.models import onnx_export
from tradsys.models.baseline import BaseRate
from tradsys.models.calibrators import Identity, Isotonic, Temperature
from tradsys.models.ensembles.compose import Average, SeedAverage
from tradsys.models.graphs.writer import GraphWriter
from tradsys.models.linear import LogisticRegression, Ridge
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.onnx_export import check_parity, export_onnx
from tradsys.models.onnx_runtime import OnnxModel
from tradsys.models.sequence import SequenceModel
from tradsys.models.training.lit import LitClassifier
from tradsys.models.training.trainer import TrainerSettings
from tradsys.models.transforms import RobustScaler, with_fitted

LOOKBACK = 9


def make_samples(n_rows=300, n_classes=2):
    rng = np.random.default_rng(1)
    values = (rng.standard_t(3, size=(n_rows, 4)) * [1, 10, 0.01, 3] + [0, 100, 0, -5]).astype(np.float32)
    table = FeatureTable(
        symbol=np.zeros(n_rows, np.int32),
        time=np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "h"),
        segment=np.zeros(n_rows, np.int32),
        values=values,
        names=("a", "b", "c", "d"),
        symbols=("AAA",),
    )
    rows = np.arange(LOOKBACK - 1, n_rows)
    y = (values[rows, 0] + rng.normal(size=len(rows)) > 0).astype(np.int64)
    y[:n_classes] = np.arange(n_classes)
    return Samples(table, rows, y, np.ones(len(rows)), rows - LOOKBACK + 1, rows, np.zeros(len(rows)))


def untrained(n_classes=2, seed=0, **options):
    """A sequence model whose net was drawn, not trained: its graph is as hard to get right."""
    factory = partial(TransformerEncoder, d_model=16, n_heads=2, n_layers=2, ffn_mult=2, **options)
    model = SequenceModel(
        net=factory, module=LitClassifier, trainer=TrainerSettings(), lookback=LOOKBACK, batch_size=64
    )
    torch.manual_seed(seed)
    net = factory(n_features=4, n_classes=n_classes, lookback=LOOKBACK)
    torch.nn.init.normal_(net.head.weight, std=1.0)
    return with_fitted(model, {"net_": net.eval()})


def parts(model, calibrator, n_classes=2, change=lambda samples: samples):
    samples = change(make_samples(n_classes=n_classes))
    scaler = RobustScaler(clip=3.0).fit(samples.table, samples.rows)
    score_NC = model.predict_proba(scaler.apply(samples.table), samples.rows)
    return samples, scaler, score_NC, calibrator.fit(score_NC, samples.y, samples.weight)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A tempered Transformer of three classes in one file, with the parts that it was made from."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = untrained(n_classes=3)
    samples, scaler, score_NC, calibrator = parts(model, Temperature(), n_classes=3)
    worst = export_onnx(
        path, scaler=scaler, model=model, calibrator=calibrator, table=samples.table, rows=samples.rows[::3]
    )
    return path, samples, score_NC, calibrator.apply(score_NC), worst


def test_the_graph_answers_as_the_parts_do(exported):
    path, samples, score_NC, probability_NC, worst = exported
    model = OnnxModel.load(path)
    assert (model.lookback, model.n_features, model.classes) == (LOOKBACK, 4, 3)
    got_score_NC, got_probability_NC = model.predict(samples.table, samples.rows)
    assert got_score_NC.dtype == got_probability_NC.dtype == np.float64
    np.testing.assert_allclose(got_score_NC, score_NC, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got_probability_NC, probability_NC, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got_probability_NC.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert np.abs(got_score_NC - got_probability_NC).max() > 1e-3
    assert 0 <= worst < 1e-6
    np.testing.assert_array_equal(model.predict_proba(samples.table, samples.rows), got_probability_NC)


def test_bar_by_bar_is_the_batch_and_batches_are_one_another(exported, monkeypatch):
    path, samples, *_ = exported
    model = OnnxModel.load(path)
    whole = model.predict(samples.table, samples.rows)
    one_by_one = [model.predict(samples.table, samples.rows[k : k + 1]) for k in range(len(samples))]
    monkeypatch.setattr("tradsys.models.onnx_runtime.BATCH", 50)
    in_parts = model.predict(samples.table, samples.rows)
    for k in range(2):
        np.testing.assert_allclose(np.concatenate([o[k] for o in one_by_one]), whole[k], rtol=0, atol=1e-6)
        np.testing.assert_allclose(in_parts[k], whole[k], rtol=0, atol=1e-6)
    assert model.predict(samples.table, samples.rows[:0])[0].shape == (0, 3)


def test_a_window_reads_its_own_rows_and_nan_stays_nan(exported):
    path, samples, *_ = exported
    model = OnnxModel.load(path)
    before, _ = model.predict(samples.table, np.array([50]))
    values = samples.table.values.copy()
    values[:42] = 0
    values[51:] = 0
    same, _ = model.predict(samples.table.with_values(values), np.array([50]))
    np.testing.assert_array_equal(same, before)
    values[45, 2] = np.nan
    score_NC, probability_NC = model.predict(samples.table.with_values(values), np.array([50]))
    assert np.isnan(score_NC).all()
    assert np.isnan(probability_NC).all()


def test_the_file_is_one_and_checks(exported):
    path, *_ = exported
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert not any(node.domain not in ("", "ai.onnx") for node in graph.graph.node)


@pytest.mark.parametrize(
    ("model", "calibrator"),
    [
        (LogisticRegression(lookback=LOOKBACK), Isotonic()),
        (SeedAverage(LogisticRegression(lookback=LOOKBACK), 2), Identity()),
        (
            Average({"line": LogisticRegression(lookback=1), "rate": BaseRate(lookback=LOOKBACK)}, RobustScaler()),
            Temperature(),
        ),
        (
            Average(
                {"line": LogisticRegression(lookback=1), "rate": BaseRate(lookback=LOOKBACK)},
                weights={"rate": 0.25, "line": 0.75},
            ),
            Identity(),
        ),
    ],
)
def test_rivals_are_graphs_too(tmp_path, model, calibrator):
    samples = make_samples()
    model = model.fit(samples, samples)
    score_NC = model.predict_proba(samples.table, samples.rows)
    calibrator = calibrator.fit(score_NC, samples.y, samples.weight)
    path = tmp_path / "model.onnx"
    export_onnx(path, scaler=None, model=model, calibrator=calibrator, table=samples.table, rows=samples.rows[:100])
    got_NC, probability_NC = OnnxModel.load(path).predict(samples.table, samples.rows)
    np.testing.assert_allclose(got_NC, score_NC, rtol=0, atol=1e-12)
    np.testing.assert_allclose(probability_NC, calibrator.apply(score_NC), rtol=0, atol=1e-9)


def test_every_class_of_logistic_regression(tmp_path):
    samples = make_samples(n_classes=2)
    samples = replace(samples, y=samples.rows % 3)
    model = LogisticRegression().fit(samples, samples)
    path = tmp_path / "model.onnx"
    export_onnx(path, scaler=None, model=model, calibrator=None, table=samples.table, rows=samples.rows)
    got_NC, probability_NC = OnnxModel.load(path).predict(samples.table, samples.rows)
    np.testing.assert_allclose(got_NC, model.predict_proba(samples.table, samples.rows), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(probability_NC, got_NC)


def test_ridge_is_the_logistic_regression_that_it_holds(tmp_path):
    samples = make_samples()
    model = Ridge().fit(samples, samples)
    path = tmp_path / "model.onnx"
    export_onnx(path, scaler=None, model=model, calibrator=None, table=samples.table, rows=samples.rows)
    got_NC, _ = OnnxModel.load(path).predict(samples.table, samples.rows)
    np.testing.assert_allclose(got_NC, model.predict_proba(samples.table, samples.rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize("as_seeds", [False, True])
def test_the_spread_is_the_members_weighted_deviation(tmp_path, as_seeds):
    samples, model = make_samples(), LogisticRegression()
    both = {"a": model.fit(samples, samples), "b": replace(model, C=1e-4).fit(samples, samples)}
    weight = [0.5, 0.5] if as_seeds else [0.25, 0.75]
    mean = SeedAverage(model, 2) if as_seeds else Average(both, weights=dict(zip(both, weight, strict=True)))
    path = tmp_path / "model.onnx"
    mean = with_fitted(mean, {"members_": both})
    export_onnx(path, scaler=None, model=mean, calibrator=None, table=samples.table, rows=samples.rows)
    first, second = (one.predict_proba(samples.table, samples.rows)[:, 1] for one in both.values())
    _, _, spread_NC = OnnxModel.load(path).predict_with_spread(samples.table, samples.rows)
    expected = np.abs(first - second) * np.sqrt(weight[0] * weight[1])  # of two values
    assert expected.max() > 0.01
    np.testing.assert_allclose(spread_NC[:, 1], expected, rtol=0, atol=1e-9)


def calibrated(calibrator, score_NC):
    """What the calibrator's operators give in onnxruntime for these scores."""
    graph = GraphWriter(n_features=score_NC.shape[1])
    score = graph.add("Cast", graph.add("Gather", "window", np.array(0), axis=1), to=onnx.TensorProto.DOUBLE)
    graph = graph.model({"score": onnx_export.calibration(calibrator, graph, score)}, 1, score_NC.shape[1])
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"window": score_NC[:, None].astype(np.float32)})[0]


@pytest.mark.parametrize(
    "calibrator",
    [
        *(
            with_fitted(Isotonic(), {"x_": np.array(x), "y_": np.array(y)})
            for x, y in [([0.2, 0.3, 0.31, 0.8], [0.1, 0.4, 0.6, 0.7]), ([0.5], [0.4]), ([0.1, 0.9], [0.2, 0.2])]
        ),
        with_fitted(Temperature(), {"temperature_": 0.3, "bias_": np.array([0.4, -0.4]), "n_rows_": 40.0}),
        with_fitted(Temperature(), {"temperature_": 7.0, "bias_": np.array([0.0, 0.0])}),
        Identity(),
    ],
    ids=["steps", "one knot", "flat", "held within", "tempered", "none"],
)
def test_a_calibrator_by_operators_is_its_own_apply(calibrator):
    knots = getattr(calibrator, "x_", None)
    p_N = np.unique(np.concatenate([np.linspace(0, 1, 301), [] if knots is None else knots])).astype(np.float32)
    score_NC = np.stack([1 - p_N, p_N], axis=1)
    np.testing.assert_allclose(calibrated(calibrator, score_NC), calibrator.apply(score_NC), rtol=0, atol=1e-14)
    assert np.isnan(calibrated(calibrator, np.full((1, 2), np.nan))).all()


def test_a_scaler_by_operators_is_its_own_apply_and_keeps_nan(tmp_path):
    samples = make_samples()
    table = replace(samples.table, names=("a", "trait_side_of_3", "c", "d"))
    values = table.values.copy()
    values[5, 0] = np.nan
    scaler = RobustScaler(clip=1.5).fit(table, samples.rows)
    graph = GraphWriter(n_features=4)
    seen = onnx_export.scaling(scaler, graph, "window")
    last = graph.add("Cast", graph.add("Gather", seen, np.array(-1), axis=1), to=onnx.TensorProto.DOUBLE)
    session = onnxruntime.InferenceSession(graph.model({"seen": last}, 1, 4).SerializeToString())
    expected = scaler.apply(table.with_values(values)).values
    got = session.run(None, {"window": values[:, None]})[0]
    np.testing.assert_array_equal(got, expected)
    assert np.isnan(got[5, 0])


def test_another_net_behind_the_same_file_is_noticed(exported):
    path, samples, *_ = exported
    scaler = RobustScaler(clip=3.0).fit(samples.table, samples.rows)
    parts = {"scaler": scaler, "calibrator": None, "table": samples.table, "rows": samples.rows[:20]}
    with pytest.raises(BundleError, match=r"score differs from the fitted parts .* other decisions among 20 windows"):
        check_parity(path, model=untrained(n_classes=3, seed=1), **parts)
    with pytest.raises(BundleError, match="probability differs from the fitted parts"):
        check_parity(path, model=untrained(n_classes=3), **parts)


def test_a_part_read_wrongly_leaves_no_file(tmp_path, monkeypatch):
    samples = make_samples()
    model = LogisticRegression(lookback=LOOKBACK).fit(samples, samples)
    wrong = with_fitted(model, {"intercept_": model.intercept_ + 0.01})
    monkeypatch.setattr(onnx_export, "scores", lambda part, *into, right=onnx_export.scores: right(wrong, *into))
    with pytest.raises(BundleError, match="score differs from the fitted parts"):
        export_onnx(
            tmp_path / "model.onnx",
            scaler=None,
            model=model,
            calibrator=None,
            table=samples.table,
            rows=samples.rows,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_graph_is_named(exported):
    with pytest.raises(BundleError, match="no graph stands for a model of type dict"):
        onnx_export.scores({}, GraphWriter(n_features=4), "window")
    unfitted = replace(untrained())
    with pytest.raises(BundleError, match="no weights"):
        onnx_export.scores(unfitted, GraphWriter(n_features=4), "window")


def test_a_file_that_is_no_graph_or_another_one_is_refused(tmp_path, exported):
    broken = tmp_path / "model.onnx"
    with pytest.raises(BundleError, match="is no graph"):
        OnnxModel.load(broken)
    broken.write_bytes(b"not a graph")
    with pytest.raises(BundleError, match="is no graph"):
        OnnxModel.load(broken)
    graph = onnx.load(exported[0])
    graph.graph.output.pop()
    onnx.save(graph, broken)
    with pytest.raises(BundleError, match=r"maps \['window'\] to \['score'\]"):
        OnnxModel.load(broken)
    table = exported[1].table.select(["a", "b"])
    with pytest.raises(BundleError, match="called with 2 features, the graph reads 4"):
        OnnxModel.load(exported[0]).predict(table, np.array([20]))


def test_export_says_nothing(tmp_path, capfd):
    samples = make_samples()
    model = BaseRate(lookback=LOOKBACK).fit(samples, samples)
    capfd.readouterr()
    export_onnx(
        tmp_path / "model.onnx",
        scaler=None,
        model=model,
        calibrator=None,
        table=samples.table,
        rows=samples.rows,
    )
    assert capfd.readouterr() == ("", "")


def test_the_runtime_needs_no_torch():
    code = "import sys, tradsys.models.onnx_runtime; print([m for m in ('torch', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
