# %% [markdown]
# # A CSV of your own
#
# Files differ in separators, decimals, dates and time zones. `fetch` says what it sees and reads it, or refuses and
# names the key that would tell. Here a file as a European broker writes it; its values are a random walk.

# %%
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tradsys import fetch, train

rng = np.random.default_rng(7)
close = 100 * np.exp(rng.normal(0, 0.004, 4000).cumsum())
opens = np.concatenate([[100.0], close[:-1]])
lines = ["Datum;Open;High;Low;Close;Volume"]
for k, (first, last) in enumerate(zip(opens, close, strict=True)):
    time = datetime(2023, 1, 1) + timedelta(hours=k)
    numbers = (first, max(first, last) * 1.001, min(first, last) * 0.999, last, 1000 * rng.lognormal())
    lines.append(";".join([f"{time:%d.%m.%Y %H:%M}", *(f"{x:.4f}".replace(".", ",") for x in numbers)]))
Path("broker.csv").write_text("\n".join(lines))

# %%
fetch.work(["path=broker.csv", "symbol=MYCOIN", "name=mine"])

# %% [markdown]
# The bars lie in the store now, under `data/`. Fetching a newer file appends: what overlaps is compared value by
# value, and nothing is replaced without a word. A model on them is one command; this market has no edge, and the
# verdict says so.

# %%
QUICK = [
    "regime=none",
    "auditor=none",
    "strategy=[reckless]",
    "baselines=base_rate",
    "evaluation.n_draws=100",
    "evaluation.n_permutations=1",
]
train.work(["data=mine", "model=logistic", *QUICK])
