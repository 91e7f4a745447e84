"""Nets of one shape trained as one model: seeds and folds side by side.

net        StackNet
stack      Stack
fit        StackJob, fit_stack
together   fit_together, stacks_of, train_ahead
"""
