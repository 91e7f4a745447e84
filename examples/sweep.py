# %% [markdown]
# # A sweep, and what its winner is worth
#
# Trials are judged on purged folds inside the training and validation span; the test span stays closed. The winner is
# the trial with the best lower bound, not the best value: the best value of many is luck, mostly.

# %%
from tradsys import tune

SMALL = ["model=logistic", "sweep=logistic", "n_trials=4", "sweep.n_startup=2"]
tune.work([*SMALL, "study_name=first"])

# %% [markdown]
# The table above shows every trial with its bound, and `runs/tune/first/` holds the page. The same command again goes
# on where it stopped; more workers, here or on other machines, join by the same name (docs/sweeps.md).
#
# A winner is promoted only if its lower bound lies above the base rate: `tradsys tune promote study=first` writes it
# as `model=first` into the project's `conf/`.
