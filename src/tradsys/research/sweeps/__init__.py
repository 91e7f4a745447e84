"""Hyperparameter studies: trials on inner folds, shared by workers and machines.

commands        tune, promote
settings        SweepSettings
search_space    SearchSpace
inner_folds     InnerFolds, shared_dataset
trial           TrialRunner
trial_queue     TrialQueue
side_by_side    work_on
trial_stack     TrialStack
storage         open_storage
"""
