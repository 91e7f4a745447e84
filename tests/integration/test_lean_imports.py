"""A run of trees loads neither torch nor Lightning nor ONNX's exporter, a run without a net no Lightning."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from tradsys.train import work
import tradsys.research.comparisons.comparison, tradsys.research.sweeps.commands
print("studies:", *{"torch", "pytorch_lightning", "sklearn", "pandas"} & set(sys.modules))
work(sys.argv[1:])
print("loaded:", *{"torch", "pytorch_lightning", "onnxscript"} & set(sys.modules))
"""


@pytest.mark.parametrize(
    ("model", "loads"),
    [(["model=lightgbm", "model.n_estimators=10"], ""), (["model=logistic"], "torch")],
    ids=["trees", "one graph without a net"],
)
def test_a_run_without_a_net_loads_no_lightning_and_one_of_trees_no_torch(model, loads, tmp_path):
    few = ["n_draws=50", "n_oof_folds=2", "n_permutations=1", "n_placebos=5"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "data=synthetic", "data.n_bars=1200", "split=holdout", *model,
         "baselines=base_rate", "auditor=none", "regime=none", "strategy=[reckless]",
         *(f"evaluation.{one}" for one in few)],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].strip() == "studies:"
    assert done.stdout.splitlines()[-1].strip() == f"loaded: {loads}".strip()
