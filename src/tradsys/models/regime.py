"""Market regimes: a Gaussian hidden Markov model, filtered forward and never smoothed.

Shapes: R rows of the table, N decision rows, T bars of one series, D columns, K states.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np

from tradsys.core.bounds import check_bounds
from tradsys.core.errors import BundleError, DataError, TrainingError
from tradsys.core.plain_data import Json
from tradsys.core.progress.stages import counted
from tradsys.core.received import refused_in_one_line
from tradsys.core.tables import ROWS_AT_ONCE, Array, FeatureTable, Samples
from tradsys.models.regime_filter import filter_series, filter_windows, log_densities, whitening
from tradsys.models.transforms import fitted, with_fitted

STAY = 0.95  # diagonal of EM's first transition matrix
FLOOR = 1e-8  # least transition probability: every state stays reachable, and no logarithm is infinite
BOUNDS = dict.fromkeys(("lookback", "n_seeds", "max_iter", "max_rows"), "whole [1, inf)")
STATE = ("center_", "scale_", "startprob_", "transmat_", "means_", "covars_", "loglik_", "n_rows_")
FIT = ("converged_", "n_iter_", "last_gain_")  # of EM; files of earlier versions lack them
LOG = logging.getLogger(__name__)


def check_state(columns: Sequence[str], names: Sequence[str], state: Mapping[str, Any]) -> None:
    """Raises BundleError where fitted numbers do not fit states and columns."""
    K, D = len(names), len(columns)
    shapes = {"center_": (D,), "scale_": (D,), "startprob_": (K,), "transmat_": (K, K), "means_": (K, D)}
    shapes["covars_"] = (K, D, D)
    wrong = [n for n, shape in shapes.items() if state[n].shape != shape or not np.isfinite(state[n]).all()]
    if not wrong:
        rows = np.vstack([state["startprob_"], state["transmat_"]])
        if not (rows >= 0).all() or not np.allclose(rows.sum(axis=1), 1):
            wrong.append("transmat_")
        covars = state["covars_"]
        if not np.allclose(covars, covars.transpose(0, 2, 1)) or not np.linalg.eigvalsh(covars).min() > 0:
            wrong.append("covars_")
        if not (state["scale_"] > 0).all():
            wrong.append("scale_")
    if wrong or not all(isinstance(name, str) for name in (*columns, *names)):
        raise BundleError(f"regime: {wrong} are no model of {K} states and {D} columns; export the bundle again")


def stationary(transmat_KK: Array) -> Array:
    """The stationary distribution [K] of the transition matrix: pi A = pi, sum 1."""
    n_states = len(transmat_KK)
    equations = np.vstack([transmat_KK.T - np.eye(n_states), np.ones(n_states)])
    pi_K = np.linalg.lstsq(equations, np.append(np.zeros(n_states), 1.0), rcond=None)[0]
    pi_K = np.maximum(pi_K, np.finfo(np.float64).tiny)
    return pi_K / pi_K.sum()


@contextmanager
def _hmmlearn_messages() -> Iterator[list[str]]:
    """Collects what hmmlearn logs inside, for the error message instead of printing it."""
    heard: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger, keep = logging.getLogger("hmmlearn"), Keep()
    passed_on = logger.propagate
    logger.addHandler(keep)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(keep)
        logger.propagate = passed_on


def _gaussian_hmm(**settings: Any) -> Any:
    """hmmlearn's model with the densities of `regime_filter`, which are faster and deterministic.

    hmmlearn solves a system of all rows for every state and step, two thirds of a fit, and on several threads the last
    digits depend on how the rows are divided.
    """
    from hmmlearn.hmm import GaussianHMM  # noqa: PLC0415 - only fitting needs it, and scikit-learn behind it

    class Whitened(GaussianHMM):  # type: ignore[misc]
        def _compute_log_likelihood(self, X: Array) -> Array:
            try:
                return log_densities(X, np.ascontiguousarray(self.means_), *whitening(self.covars_))
            except np.linalg.LinAlgError:  # hmmlearn adds a little to the diagonal, and refuses if that does not help
                return np.asarray(super()._compute_log_likelihood(X))

    return Whitened(**settings)


def _steps_of(hmm: Any, tol: float) -> dict[str, Any]:
    """FIT: how EM ended. hmmlearn's own `converged` is also true where it ran out of steps."""
    history = list(hmm.monitor_.history)  # the last two log-likelihoods
    gain = float(history[-1] - history[-2]) if len(history) > 1 else None
    return {"converged_": gain is not None and gain < tol, "n_iter_": int(hmm.monitor_.iter), "last_gain_": gain}


@dataclass(frozen=True, eq=False)
class HmmRegime:
    """Probability of each regime at a row, from its last `lookback` rows.

    Nothing later is read.
    columns: D columns, standardised on the training rows. names: states from the calmest to the
    wildest. order_column, order_by: volatility of a state is the variance of that column within it
    ("variance", for a return) or its mean ("mean", for a volatility feature); default the first column.
    lookback: rows of each filter run, which begins from the prior; where the window is not finite or crosses a
    segment the row is NaN. n_seeds: EM starts, of which the best training likelihood is kept. covariance:
    "diag" or "full". tol: EM stops below this gain in log-likelihood, or after max_iter. min_share: a start
    is rejected when a state's mean filtered probability is smaller. max_rows: about so many of the latest
    training rows are used at most.

    Fitted: startprob_ [K] is the stationary distribution of transmat_ [K, K], not EM's own, which
    describes only the first bar of a few training series while a window begins anywhere. means_ [K, D] and
    covars_ [K, D, D] are in standardised units; center_, scale_ [D]; loglik_ of the n_rows_ training rows.
    converged_: EM's last step gained less than `tol`; n_iter_ steps, the last of which gained last_gain_ nats;
    None where an earlier version fitted.
    Source: Rabiner 1989, eqs. 19-20 (forward recursion), here normalised at each step.
    """

    columns: tuple[str, ...]
    n_states: int = 3
    lookback: int = 240
    n_seeds: int = 5
    max_iter: int = 100
    names: tuple[str, ...] = ("calm", "trend", "panic")
    seed: int = 0
    max_rows: int = 60_000
    covariance: Literal["diag", "full"] = "full"
    order_column: str | None = None
    order_by: Literal["variance", "mean"] = "variance"
    tol: float = 1e-2
    min_share: float = 0.005
    center_: Array | None = field(init=False, default=None)
    scale_: Array | None = field(init=False, default=None)
    startprob_: Array | None = field(init=False, default=None)
    transmat_: Array | None = field(init=False, default=None)
    means_: Array | None = field(init=False, default=None)
    covars_: Array | None = field(init=False, default=None)
    loglik_: float | None = field(init=False, default=None)
    n_rows_: int | None = field(init=False, default=None)
    converged_: bool | None = field(init=False, default=None)
    n_iter_: int | None = field(init=False, default=None)
    last_gain_: float | None = field(init=False, default=None)
    _whitened: tuple[Array, Array, Array] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "names", tuple(self.names))
        ordered = self.order_column is None or self.order_column in self.columns
        check_bounds("regime", self, BOUNDS, "regime")
        known = self.order_by in ("variance", "mean") and self.covariance in ("diag", "full")
        if not (len(self.names) == self.n_states >= 2 and self.columns and ordered and known):
            raise DataError(
                f"regime: {self.n_states} states named {list(self.names)}, columns {list(self.columns)}, "
                f"ordered by {self.order_by} of {self.order_column}, covariance {self.covariance}; the rule "
                "is one name per state, at least two, and an order column among the columns; change the "
                "regime config"
            )

    def fit(self, train: Samples, valid: Samples) -> Self:  # noqa: ARG002
        """A copy fitted on the rows of the training windows; `valid` is not used.

        Raises DataError for a constant column or too few rows, TrainingError when every start degenerates.
        """
        x_TD, fresh_T = self._training_rows(train)
        center, scale = x_TD.mean(axis=0), x_TD.std(axis=0)
        still = [c for c, s in zip(self.columns, scale, strict=True) if not s > 0]
        if still:
            raise DataError(f"regime: columns {still} are constant over {len(x_TD)} training rows; drop them")
        z_TD = (x_TD - center) / scale
        best: Self | None = None
        reasons = []
        for start in counted("regime: start", range(self.n_seeds)):
            try:
                one = self._one_start(z_TD, fresh_T, np.random.default_rng([self.seed, start]))
            except TrainingError as refused:
                reasons.append(f"start {start}: {refused}")
                continue
            if best is None or fitted(one, "loglik_") > fitted(best, "loglik_"):
                best = one
        if best is None:
            raise TrainingError(
                f"regime: none of {self.n_seeds} starts on {len(z_TD)} rows gave {self.n_states} states "
                f"({'; '.join(reasons)}); each state needs rows; use fewer states or a longer span"
            )
        if note := best.unconverged():
            LOG.warning("%s", note)
        return with_fitted(best, {"center_": center, "scale_": scale, "n_rows_": len(z_TD)})

    def unconverged(self) -> str | None:
        """A sentence with numbers where EM did not converge.

        None where it did or the file does not state it.
        """
        if self.converged_ is not False:
            return None
        gain = self.last_gain_
        gained = "no second step" if gain is None else f"the last step still gained {gain:.3g} nats"
        return (
            f"regime: EM stopped at max_iter={self.max_iter} before it converged ({gained}, tol is {self.tol:g}); the "
            "states are not the most likely ones; raise regime.max_iter"
        )

    def _training_rows(self, train: Samples) -> tuple[Array, Array]:
        """Finite rows of the training windows [T, D] in table order; True [T] where a new series begins."""
        table = train.table.select(self.columns)
        steps = np.zeros(len(table) + 1, dtype=np.int64)
        np.add.at(steps, train.start, 1)
        np.add.at(steps, train.rows + 1, -1)
        rows = np.flatnonzero((np.cumsum(steps[:-1]) > 0) & np.isfinite(table.values).all(axis=1))
        if len(rows) > self.max_rows:
            rows = rows[table.time[rows] >= np.sort(table.time[rows])[-self.max_rows]]
        needed = 20 * self.n_states * len(self.columns)
        if len(rows) < needed:
            least = f"{needed} are the least for {self.n_states} states of {len(self.columns)} columns"
            raise DataError(f"regime: {len(rows)} finite training rows; {least}; use a longer span")
        fresh = np.ones(len(rows), dtype=bool)
        fresh[1:] = (np.diff(rows) != 1) | (np.diff(table.segment[rows]) != 0)
        return table.values[rows].astype(np.float64), fresh

    def _one_start(self, z_TD: Array, fresh_T: Array, rng: np.random.Generator) -> Self:
        """EM from the moments of random stretches, states ordered; TrainingError if degenerate.

        The recursions run on scaled densities, three times as fast as in logarithms; a start that underflows there,
        because a bar lies where no state has any density, is repeated in logarithms.
        """
        stretches = self._stretches(z_TD, rng)
        lengths = np.diff(np.append(np.flatnonzero(fresh_T), len(z_TD)))
        try:
            hmm = self._expectation_maximisation(z_TD, lengths, stretches, "scaling")
        except TrainingError:
            hmm = self._expectation_maximisation(z_TD, lengths, stretches, "log")
        return with_fitted(self._ordered(hmm)._scored(z_TD, fresh_T), _steps_of(hmm, self.tol))

    def _expectation_maximisation(
        self, z_TD: Array, lengths: Array, stretches: tuple[Array, Array], implementation: str
    ) -> Any:
        """hmmlearn's model fitted from these means [K, D] and covariances [K, D, D]; TrainingError if degenerate."""
        hmm = _gaussian_hmm(
            n_components=self.n_states,
            covariance_type=self.covariance,
            n_iter=self.max_iter,
            tol=self.tol,
            init_params="",
            # hmmlearn adds a scalar prior to every entry of a full matrix, so it is not a ridge there
            covars_prior=1e-2 * np.eye(z_TD.shape[1]) if self.covariance == "full" else 1e-2,
            implementation=implementation,
        )
        hmm.startprob_ = np.full(self.n_states, 1 / self.n_states)
        hmm.transmat_ = np.full((self.n_states, self.n_states), (1 - STAY) / (self.n_states - 1))
        np.fill_diagonal(hmm.transmat_, STAY)
        hmm.means_, covars = stretches
        hmm.covars_ = covars if self.covariance == "full" else np.diagonal(covars, axis1=1, axis2=2)
        # a state that loses its rows divides 0 by 0 inside; the checks below reject the result
        with _hmmlearn_messages() as heard, np.errstate(all="ignore"):
            try:
                hmm.fit(z_TD, lengths)
            except ValueError as cause:
                raise TrainingError(f"{cause} {heard}") from cause
        numbers = (hmm.transmat_, hmm.means_, hmm.covars_)
        if not all(np.isfinite(a).all() for a in numbers) or not np.allclose(hmm.transmat_.sum(axis=1), 1):
            raise TrainingError(f"a state lost its rows {heard}")
        if not np.linalg.eigvalsh(hmm.covars_).min() > 0:
            raise TrainingError(f"a covariance is singular {heard}")
        return hmm

    def _stretches(self, z_TD: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Means [K, D] and covariances [K, D, D] of K random runs of rows, which differ in volatility."""
        size = max(10 * z_TD.shape[1], min(len(z_TD) // (2 * self.n_states), 500))
        first = rng.integers(0, len(z_TD) - size + 1, self.n_states)
        parts = [z_TD[i : i + size] for i in first]
        ridge = 1e-2 * np.eye(z_TD.shape[1])
        covars = [np.atleast_2d(np.cov(part.T)) + ridge for part in parts]
        return np.stack([part.mean(axis=0) for part in parts]), np.stack(covars)

    def _ordered(self, hmm: Any) -> Self:
        """A fitted copy with states from the calmest to the wildest, transitions floored at 1e-8."""
        at = 0 if self.order_column is None else self.columns.index(self.order_column)
        volatility_K = hmm.covars_[:, at, at] if self.order_by == "variance" else hmm.means_[:, at]
        order = np.argsort(volatility_K, kind="stable")
        transmat = np.maximum(hmm.transmat_[np.ix_(order, order)], FLOOR)
        transmat /= transmat.sum(axis=1, keepdims=True)
        state = {
            "startprob_": stationary(transmat),
            "transmat_": transmat,
            "means_": hmm.means_[order].copy(),
            "covars_": hmm.covars_[order].copy(),
        }
        return with_fitted(self, state)

    def _scored(self, z_TD: Array, fresh_T: Array) -> Self:
        """A copy with `loglik_` of standardised rows; TrainingError when a state holds too few of them."""
        start_K, transmat_KK = fitted(self, "startprob_"), fitted(self, "transmat_")
        posterior, loglik = filter_series(self._loglik(z_TD), fresh_T, start_K, transmat_KK)
        share_K = posterior.mean(axis=0)
        if not np.isfinite(loglik) or share_K.min() < self.min_share:
            raise TrainingError(f"log-likelihood {loglik:.6g}, share of rows per state {share_K.round(4).tolist()}")
        return with_fitted(self, {"loglik_": float(loglik)})

    def _loglik(self, z_TD: Array) -> Array:
        return log_densities(np.ascontiguousarray(z_TD), fitted(self, "means_"), *self._whitening())

    def _whitening(self) -> tuple[Array, Array]:
        """Inverse Cholesky factors [K, D, D] and constants [K] of the densities, computed once per fit."""
        covars_KDD = fitted(self, "covars_")
        if self._whitened is None or self._whitened[0] is not covars_KDD:
            object.__setattr__(self, "_whitened", (covars_KDD, *whitening(covars_KDD)))
        assert self._whitened is not None
        return self._whitened[1:]

    def log_densities(self, x_TD: Array) -> Array:
        """Log density float64 [T, K] of raw rows [T, D] in every state."""
        out = np.empty((len(x_TD), self.n_states))
        for k in range(0, len(x_TD), ROWS_AT_ONCE):  # as float64, many rows of a few columns are much memory
            out[k : k + ROWS_AT_ONCE] = self._loglik(self._standardised(x_TD[k : k + ROWS_AT_ONCE]))
        return out

    def _standardised(self, x_TD: Array) -> Array:
        return (np.asarray(x_TD, dtype=np.float64) - fitted(self, "center_")) / fitted(self, "scale_")

    def filter(self, x_TD: Array) -> Array:
        """Filtered posterior float64 [T, K] of one series [T, D].

        In the order of `columns`. Row t uses rows 0..t; the prior holds at t=0. A row with NaN gives NaN, and the prior
        holds again after it.
        """
        if np.ndim(x_TD) != 2 or np.shape(x_TD)[1] != len(self.columns):
            raise DataError(f"regime: series of shape {np.shape(x_TD)}; the rule is [T, {len(self.columns)}]")
        z_TD = self._standardised(x_TD)
        # one NaN column must blank the row for every state
        loglik_TK = np.where(np.isfinite(z_TD).all(axis=1, keepdims=True), self._loglik(z_TD), np.nan)
        fresh = np.zeros(len(z_TD), dtype=bool)
        return filter_series(loglik_TK, fresh, fitted(self, "startprob_"), fitted(self, "transmat_"))[0]

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Filtered posterior float64 [N, K] from each row's last `lookback` rows.

        Begun from the prior. NaN where these rows are not all finite or span two segments. A single row gives the same
        bits as in a batch.
        """
        return self.filter_windows(table, rows, self.lookback)

    def filter_windows(self, table: FeatureTable, rows: Array, lookback: int) -> Array:
        """Filtered posterior as of `predict_proba`, over windows of `lookback` rows."""
        rows = np.asarray(rows, dtype=np.int64)
        source = table.select(self.columns)
        out = np.full((len(rows), self.n_states), np.nan)
        known = np.flatnonzero(source.ready(lookback)[rows])
        if not len(known):
            return out
        ends = rows[known]
        low = int(ends.min()) - lookback + 1
        loglik_RK = self.log_densities(source.values[low : int(ends.max()) + 1])
        start_K, transmat_KK = fitted(self, "startprob_"), fitted(self, "transmat_")
        out[known] = filter_windows(loglik_RK, ends - low, lookback, start_K, transmat_KK)
        return out

    def to_json(self) -> Json:
        """A JSON value with every digit; `from_json` gives the same posteriors to the bit."""
        params = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        state = {name: fitted(self, name) for name in STATE}
        numbers = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
        numbers |= {name: getattr(self, name) for name in FIT}
        return {"params": {**params, "columns": list(self.columns), "names": list(self.names)}, **numbers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The fitted model that `to_json` wrote."""
        whole = ("loglik_", "n_rows_")
        with refused_in_one_line("regime", "export the bundle again"):
            state = {k: value[k] if k in whole else np.asarray(value[k], dtype=np.float64) for k in STATE}
            made = cls(**value["params"])
            check_state(made.columns, made.names, state)
            return with_fitted(made, state | {name: value.get(name) for name in FIT})
