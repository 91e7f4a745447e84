"""Leaks of what learns, serves and trades."""

from dataclasses import replace

import numpy as np
import polars as pl
from hmmlearn.hmm import GaussianHMM

from tests.leaks.registry import leak
from tradsys.models.ensembles.compose import Calibrated
from tradsys.models.ensembles.out_of_fold import OutOfFold
from tradsys.models.regime import HmmRegime
from tradsys.models.transforms import RobustScaler
from tradsys.portfolio import simulator, vectorbt_adapter
from tradsys.research.pipeline import bundle_export, dataset, training
from tradsys.serving import bundle as serving_bundle
from tradsys.serving.strategy import Strategy

# ------------------------------------------------------------------ what learns


@leak("whole-sample scaling: the scaler fitted on all rows", "transforms", "sealed")
def scaler_on_all(mp, e):
    real = RobustScaler.fit
    mp.setattr(RobustScaler, "fit", lambda self, table, rows: real(self, table, np.flatnonzero(table.ready(1))))
    return e


@leak("whole-sample scaling: the scaler centred where it is applied", "transforms", "future")
def scaler_of_batch(mp, e):
    real = RobustScaler.apply
    mp.setattr(
        RobustScaler,
        "apply",
        lambda self, t: real(self, t.with_values(t.values - np.nanmean(t.values, axis=0))),
    )
    return e


def hmm_over_all(self, table, rows, answer):
    z = np.nan_to_num(self._standardised(table.select(self.columns).values))
    hmm = GaussianHMM(self.n_states, covariance_type="full")
    hmm.startprob_, hmm.transmat_, hmm.means_ = self.startprob_, self.transmat_, self.means_
    hmm.n_features, hmm.covars_ = z.shape[1], self.covars_
    return answer(hmm, z, np.bincount(table.symbol))[rows]


@leak("HMM smoothed", "regime", "future")
def smoothed(mp, e):
    def smooth(self, table, rows):
        return hmm_over_all(self, table, rows, lambda hmm, z, n: hmm.predict_proba(z, n))

    mp.setattr(HmmRegime, "predict_proba", smooth)
    return e


@leak("HMM by Viterbi", "regime", "future")
def viterbi(mp, e):
    def decode(self, table, rows):
        return hmm_over_all(self, table, rows, lambda hmm, z, n: np.eye(self.n_states)[hmm.predict(z, n)])

    mp.setattr(HmmRegime, "predict_proba", decode)
    return e


@leak("HMM fitted on all data", "regime", "sealed")
def hmm_on_all(mp, e):
    real = HmmRegime._training_rows

    def everything(self, train):
        rows = np.flatnonzero(train.table.ready(self.lookback))
        return real(self, replace(train, rows=rows, start=rows - self.lookback + 1))

    mp.setattr(HmmRegime, "_training_rows", everything)
    return e


@leak("auditor on in-sample probabilities", "auditor scores", "sealed")
def in_sample(mp, e):
    def seen(model, samples, splitter, valid, workdir=None):
        proba = model.fit(samples, valid).predict_proba(samples.table, samples.rows)
        return OutOfFold(proba, np.ones(len(samples), dtype=bool))

    mp.setattr(training, "out_of_fold", seen)
    return e


@leak("calibrator on training rows", "calibrator rows", "sealed")
def calibrator_on_train(mp, e):
    def fit(self, train, valid):
        model = self.model.fit(train, valid)
        scores = model.predict_proba(train.table, train.rows)
        return self.of(model, self.calibrator.fit(scores, train.y, train.weight))

    mp.setattr(Calibrated, "fit", fit)
    return e


@leak("early stopping on test", "primary", "sealed")
def stops_on_test(mp, e):
    mp.setattr(dataset.Prepared, "valid", dataset.Prepared.test)
    return e


@leak("threshold chosen on test", "thresholds", "sealed")
def threshold_on_test(mp, e):
    real = bundle_export._card

    def card(experiment, prepared, fitted, kind, config):
        test = prepared.test
        score = fitted.primary.score(test.table, test.rows)[:, 1]
        levels = np.quantile(score, np.linspace(0, 1, 1001)).tolist()
        return real(experiment, prepared, fitted, kind, config) | {"valid_score_quantiles": levels}

    mp.setattr(bundle_export, "_card", card)
    return e


# ------------------------------------------------------------------ what serves and trades


@leak("scores ranked within the batch", "bundle", "future")
def ranked(mp, e):
    real = serving_bundle.Boosted.predict

    def predict(self, table, rows):
        score, proba = real(self, table, rows)
        return score.argsort(axis=0).argsort(axis=0) / len(rows), proba

    mp.setattr(serving_bundle.Boosted, "predict", predict)
    return e


@leak("barriers from the next bar's ATR", "bundle", "future")
def bundle_atr(mp, e):
    real = serving_bundle.atr
    mp.setattr(serving_bundle, "atr", lambda *a: np.append(real(*a)[1:], np.nan))
    return e


@leak("history too short for the warm-up", "bundle", "past")
def short_history(mp, e):
    mp.setattr(bundle_export, "_history", lambda experiment, prepared: experiment.lookback + 5)
    return e


@leak("entries only where the next bar rises", "strategy", "future")
def next_bar_rises(mp, e):
    real = Strategy.targets

    def targets(self, bars, since=None, predictions=None):
        rises = bars.filter(pl.col("close").shift(-1).over("symbol") > pl.col("close")).select("symbol", "time")
        return real(self, bars, since, predictions).join(
            rises, on=["symbol", "time"], how="semi", maintain_order="left"
        )

    mp.setattr(Strategy, "targets", targets)
    return e


@leak("same-bar fill", "execution", "future")
def same_bar_fill(mp, e):
    real = vectorbt_adapter.walk

    def walk(bars, entries, **kw):
        walked = real(bars, entries, **kw)
        return replace(walked, entry_bar=walked.entry_bar - 1, entry_raw=bars.close[walked.entry_bar - 1])

    mp.setattr(vectorbt_adapter, "walk", walk)
    return e


@leak("fill at the best price of the entry bar", "execution", "future")
def best_price(mp, e):
    real = simulator._Account._enter

    def enter(self, order, i, bar):
        return real(self, order, i, bar._replace(open=bar.low if order.side > 0 else bar.high))

    mp.setattr(simulator._Account, "_enter", enter)
    return e
