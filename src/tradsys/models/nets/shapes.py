"""Check shared by all nets: a window of another shape than the net was built for is refused."""

from torch import Tensor


def check_window(net: str, window_NTF: Tensor, lookback: int, n_features: int) -> None:
    """Raises ValueError unless the windows are [N, lookback, n_features].

    net: name in the error.
    """
    if tuple(window_NTF.shape[1:]) != (lookback, n_features):
        raise ValueError(
            f"{net}: window of shape {tuple(window_NTF.shape)}; it must be [N, {lookback}, {n_features}]; rebuild the "
            "net for these features and lookback"
        )
