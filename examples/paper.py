# %% [markdown]
# # From a bundle to paper trading
#
# A run leaves a bundle: scaler, net and calibrator as one ONNX graph, the regime model, the auditor, and a card.
# Backtest, replay, paper and live trading call the very same objects.

# %%
from tradsys import export, trade, train

SMALL = ["data.n_bars=2500", "model=logistic", "auditor=none", "regime=none", "strategy=[reckless]", "levels=quantile"]
QUICK = ["baselines=base_rate", "evaluation.n_draws=50", "evaluation.n_permutations=1"]
train.work(["data=synthetic", *SMALL, *QUICK])

# %% [markdown]
# `export` promotes a bundle to `models/`. It refuses one whose verdict is not `edge` unless a reason is given; this one
# is for showing how things go.

# %%
export.work(["name=first", "force=true"])

# %% [markdown]
# `replay` sends stored bars through the runtime of the bot, bar by bar. Its ledger equals the backtest's, trade for
# trade.

# %%
trade.work(["replay", "bundle=models/first/1", "strategy=reckless", "name=first_replay"])
trade.work(["status", "name=first_replay"])

# %% [markdown]
# The same bot on a live feed with simulated fills, from a shell:
#
# ```sh
# python -m tradsys.trade paper bundle=models/first/1 exchange=binance strategy=reckless
# ```
#
# docs/trading.md goes on from here, with the checklist before real money. Nothing here has traded real money yet.
