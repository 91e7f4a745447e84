"""Whether nets train faster as a stack than one after another: their work, counted before any of them trains.

The unit is a step of one of the nets alone. The constants come from benchmarks/bench_stack.py. A count instead of a
measurement, so that a seed always gives the same bits: a busy machine would choose differently from run to run.
"""

import math
from collections.abc import Sequence

from torch import nn

from tradsys.models.net_fits import NetFit
from tradsys.models.sequence import SequenceModel

# most nets of one stack: on a CPU few, so that each process of a comparison gets one
MOST_ON_CPU, MOST_ON_GPU = 16, 32
START, START_OF_NET = 60.0, 2.0  # steps that setting up a stack, and each net in it, takes
OF_TWO = 1.6  # a step of a stack beside what each further net adds: vmap's calls
LEAST_SHARE, HALF_WORK = 0.07, 250_000.0  # of `share_of_step`
MARGIN = 1.1  # predicted gain from which nets are stacked: a chosen stack is never the slower way


def gains(fits: Sequence[NetFit], net: nn.Module, copies: int = 1) -> bool:
    """Whether nets of one shape are faster as a stack.

    On the device that fits them. net: one of them, untrained. copies: how many times these fits are in the stack, as
    trials of a sweep are.
    """
    model: SequenceModel = fits[0].model
    if model.trainer.uses_gpu():
        return True
    if len(fits) * copies < 2:
        return False
    steps = [n_steps(fit) for fit in fits]
    share = share_of_step(sum(p.numel() for p in net.parameters()), model.lookback, model.batch_size)
    return copies * sum(steps) >= MARGIN * stack_steps(steps, share, copies)


def most_nets(model: SequenceModel) -> int:
    """Default limit of nets in a stack of this shape."""
    return MOST_ON_GPU if model.trainer.uses_gpu() else MOST_ON_CPU


def n_steps(fit: NetFit) -> int:
    """Steps of all planned epochs of a fit."""
    model: SequenceModel = fit.model
    return int(model.trainer.max_epochs * math.ceil(len(fit.train) / model.batch_size))


def stack_steps(steps: Sequence[int], share: float, copies: int = 1) -> float:
    """Cost of a stack of nets with so many steps each.

    In steps of a net alone. A net that is done leaves the stack, and the last one trains as if alone. share: see
    `share_of_step`. copies: of each net.
    """
    done, cost = 0, START + START_OF_NET * copies * len(steps)
    for place, until in enumerate(ordered := sorted(steps)):
        n_nets = copies * (len(ordered) - place)
        cost += (until - done) * (1.0 if n_nets == 1 else OF_TWO + share * (n_nets - 1))
        done = until
    return cost


def share_of_step(n_parameters: int, lookback: int, batch_size: int) -> float:
    """Share of a net's own step that it adds to a step of a stack.

    From nearly nothing where calls decide to all of it where arithmetic does. The arithmetic is measured by bars of a
    batch times the net's width, of which the root of the number of parameters is a multiple.
    """
    work = lookback * batch_size * math.sqrt(n_parameters)
    return LEAST_SHARE + (1 - LEAST_SHARE) * work / (work + HALF_WORK)
