"""Nets of one shape trained as one model: seeds, folds and trials in parallel.

net        StackNet
stack      Stack
fit        StackJob, StackTraining, fit_stack
gain       gains, most_nets
together   fit_together, stacks_of, train_ahead
"""
