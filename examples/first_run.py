# %% [markdown]
# # A first run, and how to read its report
#
# One command goes from bars to a verdict. The market here is synthetic, with a small edge planted in it, so that we
# know what an honest answer is. Everything is made small: the whole notebook takes about a minute.

# %%
import json
from pathlib import Path

from tradsys import train

SMALL = ["data.n_bars=4000", "size.lookback=8", "size.d_model=8", "size.n_layers=1", "trainer.max_epochs=2"]
QUICK = ["evaluation.n_oof_folds=2", "evaluation.n_placebos=100", "regime.n_seeds=1", "trainer.progress_bar=false"]
train.work(["+experiment=demo", *SMALL, *QUICK])

# %% [markdown]
# The command printed models, strategies and the verdict, and wrote the same to a folder: `report.html` to look at,
# `report.json` for programs. The verdict comes first, with its reasons.

# %%
run = Path("runs/train/latest")
report = json.loads((run / "report.json").read_text())
print("verdict:", report["verdict"]["kind"])
for line in report["verdict"]["reasons"]:
    print(" ", line)

# %% [markdown]
# Then the models. Skill is the log-loss saved beyond the level of the model's own forecasts; an interval that holds 0
# says that nothing was shown. The baselines stand beside the net because they usually beat it.

# %%
for model in report["models"]:
    skill = model["metrics"]["skill_beyond_level"]
    print(
        f"{model['name']:<10} {model['kind']:<20} skill {skill['value']:.4f}",
        skill["reason"] or f"[{skill['low']:.4f}, {skill['high']:.4f}]",
    )

# %% [markdown]
# Last the strategies: a return alone says nothing, so each has an interval, the number of its trades, and a Sharpe
# ratio deflated by all evaluations of this test span that were ever made (`runs/ledger.db`).

# %%
for row in report["strategies"]:
    print(f"{row['name']:<14} {row['verdict']['kind']}")

# %% [markdown]
# The same market without an edge must not end in `edge`. Try it: `data.edge=0`.
