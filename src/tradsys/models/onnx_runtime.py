"""A fitted graph on the CPU, without torch: raw windows in, scores and probabilities out.

Shapes: R rows, N samples, T window, F features, C classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from tradsys.core.errors import BundleError
from tradsys.core.tables import Array, FeatureTable
from tradsys.samples.windows import gather

BATCH = 1024  # windows per call: bounds memory, and one call's cost is small beside it
FATAL_ONLY = 4


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """Scaler, net and calibrator as one graph.

    lookback and n_features: the window [T, F] that the graph reads, in raw features. classes: number of them.
    """

    session: ort.InferenceSession
    lookback: int
    n_features: int
    classes: int

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Self:
        """Reads a graph that `export_onnx` wrote; raises BundleError where it is not one.

        threads: of one call. One window is too small to share out, so live trading is fastest with 1.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (
            ort_errors.Fail,
            ort_errors.InvalidArgument,
            ort_errors.InvalidGraph,
            ort_errors.InvalidProtobuf,
            ort_errors.NoSuchFile,
            ort_errors.NotImplemented,
        ) as error:
            raise BundleError(
                f"onnx: {path} is no graph that onnxruntime {ort.__version__} can run "
                f"({str(error).splitlines()[0]}); export the bundle again"
            ) from error
        inputs, outputs = session.get_inputs(), session.get_outputs()
        names = [i.name for i in inputs], [o.name for o in outputs]
        if names != (["window"], ["score", "probability"]):
            raise BundleError(
                f"onnx: {path} maps {names[0]} to {names[1]}; a bundle's graph maps ['window'] to "
                "['score', 'probability']; export the bundle again"
            )
        _, lookback, n_features = inputs[0].shape
        return cls(session, int(lookback), int(n_features), int(outputs[0].shape[1]))

    def predict(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """Raw scores and calibrated probabilities, float64 [N, C] each, for windows that end at `rows`.

        NaN in, NaN out. Raises BundleError where the table's columns are not as many as the graph reads.
        """
        if table.values.shape[1] != self.n_features:
            raise BundleError(
                f"onnx: asked with {table.values.shape[1]} features, the graph reads {self.n_features}; "
                "use the feature set stored in the bundle"
            )
        score_NC = np.empty((len(rows), self.classes))
        probability_NC = np.empty((len(rows), self.classes))
        for first in range(0, len(rows), BATCH):
            batch = slice(first, first + BATCH)
            window_NTF = gather(table.values, rows[batch], self.lookback)
            score_NC[batch], probability_NC[batch] = self.run(window_NTF)
        return score_NC, probability_NC

    def run(self, window_NTF: Array) -> tuple[Array, Array]:
        """Scores and probabilities of raw float32 windows, as the graph gives them."""
        score_NC, probability_NC = self.session.run(["score", "probability"], {"window": window_NTF})
        return score_NC, probability_NC

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Calibrated float64 [N, C]."""
        return self.predict(table, rows)[1]
