# %% [markdown]
# # A feature of your own: is it causal, does it help?
#
# A feature is a frozen dataclass with a name, a warm-up and a polars expression.

# %%
from dataclasses import dataclass

import polars as pl

import tradsys as ts
from tradsys.evidence.cosines import mean_interval
from tradsys.evidence.skill import log_losses
from tradsys.features import momentum, price, volatility
from tradsys.features.registry import register
from tradsys.research.leakage import contracts


@register
@dataclass(frozen=True)
class CloseLocation:
    """Where the close lies in the range of the last `bars` bars: 0 at the low, 1 at the high."""

    bars: int

    @property
    def name(self):
        return f"close_location_{self.bars}"

    @property
    def warmup(self):
        return self.bars - 1

    def expr(self):
        low, high = pl.col("low").rolling_min(self.bars), pl.col("high").rolling_max(self.bars)
        return pl.when(high > low).then((pl.col("close") - low) / (high - low))


bars = ts.SyntheticMarket(symbols=("AAA", "BBB"), n_bars=5000, edge=0.3, seed=7).bars()

# %% [markdown]
# First, does it look ahead, remember more than it says, or mix one history with the next? The checks name what fails;
# a feature that reads tomorrow shows that they can.

# %%
mine = ts.FeatureSet([CloseLocation(bars=48)], max_gap_minutes=120).fit(bars)
few = bars.group_by("symbol", maintain_order=True).head(800)
print("looks ahead:", contracts.looking_ahead(mine, few) or "no")
print("remembers too long:", contracts.remembering(mine, few, "BBB", "AAA") or "no")
print("mixes segments:", contracts.mixing_segments(mine, few) or "no")

# %% [markdown]
# Then, does it help? The same samples, model and split with and without it, and the interval of the paired
# difference.

# %%
base = [*(price.LogReturn(bars=n) for n in (1, 6, 24)), momentum.Rsi(bars=14), volatility.Volatility(bars=24)]
labels = ts.TripleBarrier(upper=1.5, lower=1.5, horizon_bars=24, atr_bars=14).label(bars)
losses, skipped = {}, 48  # both sets begin where the longer warm-up ends
for name, features in {"without": base, "with": [*base, CloseLocation(bars=48)]}.items():
    table = ts.FeatureSet(features, max_gap_minutes=120).table(bars)
    samples = ts.make_samples(table, labels, lookback=skipped)
    fold = next(ts.Holdout(train_fraction=0.5, valid_fraction=0.2).split(samples))
    train, valid, test = (samples.take(part) for part in (fold.train, fold.valid, fold.test))
    proba = ts.LogisticRegression().fit(train, valid).predict_proba(table, test.rows)
    losses[name] = pl.DataFrame({"time": test.time, "loss": log_losses(proba, test.y)})
both = losses["without"].with_columns(gain=pl.col("loss") - losses["with"]["loss"])
gain = both.group_by("time").agg(pl.col("gain").mean()).sort("time")["gain"].to_numpy()
found = mean_interval(gain, min_block=24)
print(f"log-loss saved by the feature: {found.value:.5f}", found.reason or f"[{found.low:.5f}, {found.high:.5f}]")
print("An interval that holds 0 shows nothing: leave the feature out.")
