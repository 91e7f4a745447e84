"""Hyperparameter studies: trials on inner folds, shared by workers and machines.

commands        tune, promote
settings        SweepSettings
search_space    SearchSpace
inner_folds     InnerFolds, shared_dataset
trial           TrialRunner
trial_queue     TrialQueue
storage         open_storage
"""
