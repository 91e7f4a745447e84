"""A run without a net loads neither torch nor Lightning.

A bundle of each kind is loaded with the libraries of its own parts alone.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.small_bundle import logistic_bundle, pooled_bundle
from tests.unit.models.test_boosting import SMALL, make_samples
from tradsys.serving.bundle import seal

MODELS = (["model=lightgbm", "model.n_estimators=10"], ["model=logistic"])
CODE = f"""
import sys
from tradsys.train import work
import tradsys.research.comparisons.comparison, tradsys.research.sweeps.commands
print("studies:", *{{"torch", "pytorch_lightning", "sklearn", "pandas"}} & set(sys.modules))
for model in {MODELS}:
    work([*sys.argv[1:], *model])
    print("loaded:", *{{"torch", "pytorch_lightning", "onnxscript"}} & set(sys.modules))
"""


def test_runs_without_a_net_load_neither_torch_nor_lightning(tmp_path):
    few = ["n_draws=50", "n_oof_folds=2", "n_permutations=1", "n_placebos=5"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "data=synthetic", "data.n_bars=1200", "split=holdout", "baselines=base_rate",
         "auditor=none", "regime=none", "strategy=[reckless]", *(f"evaluation.{one}" for one in few)],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stdout.splitlines() if line.startswith(("studies:", "loaded:"))]
    assert said == ["studies:", "loaded:", "loaded:"]


LOAD = """
import sys
from tradsys.serving.bundle import Bundle
Bundle.load(sys.argv[1])
print(*sorted(name for name in sys.modules if name.count(".") == 0 or name == "onnx.reference"))
"""
LIBRARIES = {"torch", "lightning", "pytorch_lightning", "sklearn", "pandas", "numba", "scipy", "xgboost", "lightgbm",
             "onnx", "onnx.reference", "onnxruntime", "onnxscript", "hmmlearn", "statsmodels", "hydra"}  # fmt: skip
GRAPH, POOL, TREES = {"onnx", "onnxruntime"}, {"scipy"}, {"numba", "scipy"}  # scipy: softmax of members and calibrators


def boosted_bundle(folder, model):
    """The bundle of a graph with boosted trees in its place."""
    bundle = logistic_bundle(folder)
    (folder / "model.onnx").unlink()
    train, valid = (one.on(replace(one.table, names=bundle.features.names)) for one in make_samples())
    model.fit(train, valid).save(folder / "model.txt")
    kind = {"kind": type(model).__name__.lower(), "lookback": 1}
    seal(folder, bundle.card | {"model": kind, "calibrator": {"kind": "none"}})


def pool_with(folder, kind):
    """A pool whose second member is of another kind."""
    boosted_bundle(folder.parent / "trees", SMALL[0])
    card = pooled_bundle(folder).card
    logistic_bundle(folder.parent / "graph")
    source, name = {"onnx": ("graph", "model.onnx"), "lightgbm": ("trees", "model.txt")}[kind]
    (folder / "b.json").unlink()
    (folder / name).write_bytes((folder.parent / source / name).read_bytes())
    pool = json.loads((folder / "ensemble.json").read_text())
    pool["members"][1] |= {"kind": kind, "file": name}
    (folder / "ensemble.json").write_text(json.dumps(pool))
    seal(folder, card)


KINDS = {
    "graph": (logistic_bundle, GRAPH),
    "lightgbm": (lambda folder: boosted_bundle(folder, SMALL[0]), TREES),
    "xgboost": (lambda folder: boosted_bundle(folder, SMALL[1]), TREES),
    "pool of logistic regressions": (pooled_bundle, POOL),
    "pool with a graph": (lambda folder: pool_with(folder, "onnx"), GRAPH | POOL),
    "pool with trees": (lambda folder: pool_with(folder, "lightgbm"), TREES),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_loads_the_libraries_of_its_own_parts_alone(kind, tmp_path):
    made, held = KINDS[kind]
    made(tmp_path / "bundle")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    loaded = LIBRARIES & set(done.stdout.split())
    assert loaded <= held
    assert GRAPH & held <= loaded
