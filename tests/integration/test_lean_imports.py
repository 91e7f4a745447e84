"""A run of trees loads neither torch nor Lightning nor ONNX's exporter, a run without a net no Lightning."""

import os
import subprocess
import sys

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


def test_a_run_of_trees_loads_no_torch_and_then_one_without_a_net_no_lightning(tmp_path):
    few = ["n_draws=50", "n_oof_folds=2", "n_permutations=1", "n_placebos=5"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, "data=synthetic", "data.n_bars=1200", "split=holdout", "baselines=base_rate",
         "auditor=none", "regime=none", "strategy=[reckless]", *(f"evaluation.{one}" for one in few)],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = [line.strip() for line in done.stdout.splitlines() if line.startswith(("studies:", "loaded:"))]
    assert said == ["studies:", "loaded:", "loaded: torch"]
