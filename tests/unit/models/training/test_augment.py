import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from tradsys.core.errors import TrainingError
from tradsys.models.training.augment import FeatureDropout, Jitter, Scaling, TimeMask, Views, WindowCrop

STRONG = [Jitter(0.5), Scaling(0.5), TimeMask(0.3), WindowCrop(0.5), FeatureDropout(0.5)]
IDLE = [Jitter(0.0), Scaling(0.0), TimeMask(0.0), WindowCrop(0.0), FeatureDropout(0.0)]


def named(change):
    return type(change).__name__


def windows(n=64, n_bars=20, n_features=5, seed=0):
    return torch.randn(n, n_bars, n_features, generator=torch.Generator().manual_seed(seed))


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("change", IDLE, ids=named)
def test_strength_zero_is_the_window_itself_and_draws_nothing(change):
    window_NTF, generator = windows(), seeded()
    before = generator.get_state()
    assert torch.equal(change(window_NTF, generator), window_NTF)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("change", STRONG, ids=named)
def test_a_seed_repeats_it_another_does_not_and_the_input_stays(change):
    window_NTF = windows()
    kept = window_NTF.clone()
    one, again, other = (change(window_NTF, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(window_NTF, kept)
    assert (one.shape, one.dtype) == (kept.shape, kept.dtype)


@pytest.mark.parametrize("change", STRONG, ids=named)
def test_without_a_generator_the_global_one_is_drawn_from(change):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        one = change(windows())
        torch.manual_seed(5)
        assert torch.equal(one, change(windows()))


@given(
    st.sampled_from([*STRONG, WindowCrop(0.99), TimeMask(0.99), FeatureDropout(0.99)]),
    st.integers(1, 6), st.integers(1, 30), st.integers(1, 4), st.integers(0, 9),
)  # fmt: skip
def test_no_shape_brings_a_value_that_is_not_finite(change, n, n_bars, n_features, seed):
    out = change(windows(n, n_bars, n_features), seeded(seed))
    assert out.shape == (n, n_bars, n_features)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("change", [TimeMask(0.9), WindowCrop(0.9)], ids=named)
def test_changes_of_time_leave_the_decision_bar_as_it_is(change):
    window_NTF = windows()
    for seed in range(20):
        assert torch.equal(change(window_NTF, seeded(seed))[:, -1], window_NTF[:, -1])


def test_jitter_has_its_sigma_and_no_mean():
    noise = Jitter(0.3)(windows(500), seeded()) - windows(500)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)


def test_scaling_is_one_factor_per_window_and_feature():
    window_NTF = windows(400)
    factor = Scaling(0.2)(window_NTF, seeded()) / window_NTF
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor), rtol=1e-3, atol=1e-3)
    assert float(factor[:, 0].std()) == pytest.approx(0.2, rel=0.1)
    assert float(factor[:, 0].mean()) == pytest.approx(1.0, abs=0.02)


def test_time_mask_hides_one_run_of_whole_bars():
    window_NTF = windows(200)
    hidden = (TimeMask(0.25)(window_NTF, seeded()) == 0).numpy()
    assert (hidden.all(axis=2) == hidden.any(axis=2)).all(), "whole bars"
    bars = hidden.all(axis=2)
    assert (bars.sum(axis=1) == 5).all()
    starts = [np.flatnonzero(row)[0] for row in bars]
    assert all(row[s : s + 5].all() for row, s in zip(bars, starts, strict=True)), "one run"
    assert (min(starts), max(starts)) == (0, 14)


def crop_loop(window_TF, kept):
    """The latest `kept` of the window drawn on T points, by numpy's own interpolation."""
    n_bars = len(window_TF)
    place = (n_bars - 1) - np.arange(n_bars - 1, -1, -1) * kept
    return np.stack([np.interp(place, np.arange(n_bars), column) for column in window_TF.T], axis=1)


def test_window_crop_is_an_interpolation_of_the_latest_part():
    window_NTF = windows(30).double()
    got = WindowCrop(0.4)(window_NTF, seeded(3))
    kept_N = 1 - 0.4 * torch.rand((30, 1), generator=seeded(3), dtype=torch.float64)
    assert float(kept_N.min()) > 0.6
    for window_TF, kept, out in zip(window_NTF, kept_N, got, strict=True):
        np.testing.assert_allclose(out.numpy(), crop_loop(window_TF.numpy(), float(kept)), rtol=0, atol=1e-12)


def test_window_crop_shows_nothing_older_than_the_part_it_keeps():
    window_NTF = windows(50)
    window_NTF[:, :10] = 1e6  # half of the window; at most half may go
    out = WindowCrop(0.5)(window_NTF, seeded())
    assert (out[:, -10:] < 1e3).all(), "time runs slower, never faster: the latest half shows the latest half"


def test_feature_dropout_blanks_whole_columns_at_its_rate():
    window_NTF = windows(2000)
    out = FeatureDropout(0.3)(window_NTF, seeded())
    gone = (out == 0).all(dim=1)
    assert float(gone.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert torch.equal(out[~gone.unsqueeze(1).expand_as(out)], window_NTF[~gone.unsqueeze(1).expand_as(out)])


def test_views_are_two_independent_passes_in_order():
    window_NTF = windows()
    left, right = Views([Jitter(0.1), TimeMask(0.2)])(window_NTF, seeded())
    assert not torch.equal(left, right)
    assert ((left == 0).all(dim=2).sum(dim=1) == 4).all(), "the mask comes last, so its zeros have no jitter"
    assert all(torch.equal(view, window_NTF) for view in Views([])(window_NTF))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Jitter(-0.1), "jitter: sigma=-0.1"),
        (lambda: Scaling(float("nan")), "scaling: sigma=nan"),
        (lambda: TimeMask(1.0), "time mask: share=1.0"),
        (lambda: WindowCrop(-0.5), "window crop: share=-0.5"),
        (lambda: FeatureDropout(1.5), "feature dropout: share=1.5"),
    ],
)
def test_a_strength_out_of_range_is_refused(make, words):
    with pytest.raises(TrainingError, match=words):
        make()
