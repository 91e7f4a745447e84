"""Which nets are faster as a stack, by a count of their work."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.unit.models.test_sequence import make_model, make_samples
from tradsys.models.net_fits import NetFit
from tradsys.models.nets.transformer import TransformerEncoder
from tradsys.models.training.stacks import gain
from tradsys.models.training.stacks.gain import n_steps, share_of_step, stack_steps
from tradsys.models.training.stacks.together import stacks_of

SAMPLES = make_samples(n_rows=2_000)
SMALL = share_of_step(1_000, 8, 32)


def fits_of(rows, *, epochs=20, width=8, batch_size=32):
    net = partial(TransformerEncoder, d_model=width, n_heads=2, n_layers=1)
    base = replace(make_model(max_epochs=epochs), net=net, batch_size=batch_size)
    valid = SAMPLES.take(np.arange(1_900, 1_950))
    return [NetFit(replace(base, seed=seed), SAMPLES.take(np.arange(n)), valid) for seed, n in enumerate(rows)]


def step_by_step(steps, share):
    """The same cost by a loop over the steps of a stack that nets leave as they are done."""
    cost = gain.START + gain.START_OF_NET * len(steps)
    for step in range(max(steps)):
        n_nets = sum(each > step for each in steps)
        cost += 1 if n_nets == 1 else gain.OF_TWO + share * (n_nets - 1)
    return cost


@pytest.mark.parametrize("steps", [(7, 7), (3, 11), (12, 5, 5, 1), (4,)])
@pytest.mark.parametrize("copies", [1, 3])
def test_the_cost_is_that_of_a_loop_over_steps(steps, copies):
    every = [each for each in steps for _ in range(copies)]
    assert stack_steps(steps, 0.3, copies) == pytest.approx(step_by_step(every, 0.3))


def test_another_net_adds_the_more_the_larger_it_is_and_at_most_a_step():
    shares = [share_of_step(n, bars, batch) for n, bars, batch in ((1e3, 8, 32), (4e3, 16, 256), (1.5e4, 32, 256))]
    assert gain.LEAST_SHARE < shares[0] < shares[1] < shares[2] < 1
    assert share_of_step(1e12, 1_000, 1_000) == pytest.approx(1)


def test_equal_nets_stack_and_unequal_or_short_ones_do_not():
    n = 1_600
    assert stacks_of(fits_of([n] * 5)) == [[0, 1, 2, 3, 4]]
    assert stacks_of(fits_of([n] * 2)) == [[0, 1]]
    assert stacks_of(fits_of([n] * 2, epochs=3)) == []  # setting up a stack costs more than it gains
    assert stacks_of(fits_of([n // 2, n])) == []  # the longer one trains alone half of the time
    assert stacks_of(fits_of([n // 50] * 4 + [n])) == []
    assert stacks_of(fits_of([n] * 5, epochs=1, batch_size=512)) == []  # four steps each
    assert stacks_of(fits_of([n] * 5, width=64, batch_size=512)) == []  # arithmetic decides


def test_fits_that_share_a_stack_with_copies_are_counted_with_them():
    unequal = fits_of([800, 1_600])
    assert stacks_of(unequal, copies=1) == []
    assert stacks_of(unequal, copies=8) == [[0, 1]]


def test_each_stack_is_counted_by_itself():
    """Five equal nets gain in so few steps, a sixth and seventh of a second stack do not."""
    assert stacks_of(fits_of([1_600] * 7, epochs=3), most=5) == [[0, 1, 2, 3, 4]]


def test_planned_steps_are_epochs_of_batches_the_last_one_included():
    [fit] = fits_of([33], epochs=3)
    assert n_steps(fit) == 6
    assert n_steps(fit) == fit.model.trainer.max_epochs * len(fit.model.loader(fit.train, fit.model.trainer.home()))
