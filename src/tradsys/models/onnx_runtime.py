"""Runs an exported graph on the CPU without torch: raw windows in, scores and probabilities out.

Shapes: R rows, N samples, T window, F features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort

from tradsys.core.errors import BundleError
from tradsys.core.received import one_line, refused_in_one_line
from tradsys.core.tables import Array, FeatureTable
from tradsys.samples.windows import gather

BATCH = 1024  # windows per call at most: bounds memory, and the cost per call is small in comparison
MOST_BYTES = 2**30  # of a file
FATAL_ONLY = 4
FIX = "export the bundle again"
# the entry `location` of a tensor whose data lie in another file (onnx.proto, TensorProto.external_data)
EXTERNAL = b"\x0a\x08location"


NAMES = (["score", "probability"], ["score", "probability", "spread"])  # outputs; the latter for a mean of members


def _are_shapes(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Whether a graph reads [N, T, F] and writes [N, C] for each output, T, F and C known and plausible."""
    known = all(isinstance(n, int) and 0 < n <= MOST for shape in (*inputs, *outputs) for n in shape[1:])
    ranks = [len(shape) for shape in (*inputs, *outputs)]
    return known and ranks == [3] + [2] * len(outputs) and len({shape[1] for shape in outputs}) == 1


MOST = 100_000  # bars, features or classes


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """Scaler, net and calibrator as one graph.

    lookback and n_features: the window [T, F] that the graph reads, in raw features. classes: number of them. outputs:
    their names, `spread` over members among them where the graph is a mean. batch: windows per call.
    """

    session: ort.InferenceSession
    lookback: int
    n_features: int
    classes: int
    outputs: Sequence[str] = ("score", "probability")
    batch: int = BATCH

    @classmethod
    def load(cls, path: str | Path, threads: int = 1) -> Self:
        """Reads a graph that `export_onnx` wrote; raises BundleError for any other file.

        threads: per call. One window is too small to split, so live trading is fastest with 1.
        """
        from tradsys.models.graphs.sizes import read_graph  # noqa: PLC0415 - onnx takes a third of a second to import

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL_ONLY
        where = f"onnx: {path}"
        size = Path(path).stat().st_size if Path(path).is_file() else 0
        if size > MOST_BYTES:
            raise BundleError(f"{where}: {size:,} bytes; at most {MOST_BYTES:,} are read; {FIX}")
        content = Path(path).read_bytes() if size else b""
        if not content or EXTERNAL in content:
            raise BundleError(f"{where} is no graph: it is missing or empty, or its weights lie in another file; {FIX}")
        with refused_in_one_line(f"{where} is no graph that onnxruntime {ort.__version__} can run", FIX):
            batch = read_graph(content, BATCH, where, FIX)
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            inputs, outputs = session.get_inputs(), session.get_outputs()
            names = [i.name for i in inputs], [o.name for o in outputs]
            shapes = [i.shape for i in inputs], [o.shape for o in outputs]
        if names[0] != ["window"] or names[1] not in NAMES or not _are_shapes(*shapes):
            raise BundleError(
                f"{where} maps {one_line(names[0], 60)} to {one_line(names[1], 60)} of shapes {one_line(shapes, 80)}; "
                f"a bundle's graph maps ['window'] [N, T, F] to ['score', 'probability'] [N, C]; {FIX}"
            )
        _, lookback, n_features = inputs[0].shape
        return cls(session, int(lookback), int(n_features), int(outputs[0].shape[1]), tuple(names[1]), batch)

    def predict(self, table: FeatureTable, rows: Array) -> tuple[Array, Array]:
        """Raw scores and calibrated probabilities, float64 [N, C] each.

        For windows that end at `rows`. NaN in, NaN out. Raises BundleError where the table has another number of
        columns than the graph.
        """
        score_NC, probability_NC, _ = self.predict_with_spread(table, rows)
        return score_NC, probability_NC

    def predict_with_spread(self, table: FeatureTable, rows: Array) -> tuple[Array, Array, Array | None]:
        """Scores and probabilities as `predict`, and the members' spread [N, C].

        The spread is None for a single model.
        """
        if table.values.shape[1] != self.n_features:
            raise BundleError(
                f"onnx: called with {table.values.shape[1]} features, the graph reads {self.n_features}; "
                "use the feature set stored in the bundle"
            )
        found = [np.empty((len(rows), self.classes)) for _ in self.outputs]
        step = min(self.batch, BATCH)
        for first in range(0, len(rows), step):
            batch = slice(first, first + step)
            window_NTF = gather(table.values, rows[batch], self.lookback)
            for out, part in zip(found, self.run(window_NTF), strict=True):
                out[batch] = part
        return found[0], found[1], found[2] if len(found) > 2 else None

    def run(self, window_NTF: Array) -> list[Array]:
        """Scores, probabilities and, for a mean, spreads, as the graph gives them.

        The input is raw float32 windows.
        """
        with refused_in_one_line("onnx: the graph does not run", FIX):
            found: list[Array] = self.session.run(list(self.outputs), {"window": window_NTF})
        for name, part in zip(self.outputs, found, strict=True):
            if part.shape != (len(window_NTF), self.classes):
                raise BundleError(f"onnx: {name} has the shape {part.shape} for {len(window_NTF)} windows; {FIX}")
        return found

    def predict_proba(self, table: FeatureTable, rows: Array) -> Array:
        """Calibrated probabilities, float64 [N, C]."""
        return self.predict(table, rows)[1]
