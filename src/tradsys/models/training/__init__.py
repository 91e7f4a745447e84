"""Fits of nets: settings, checkpoints, several devices, augmentation.

trainer        TrainerSettings
fitting        fit_module
loop           DirectLoop
checkpoints    CheckpointCallback
launcher       run_on_ranks
lit            LitClassifier
lit_supcon     LitSupCon
objective      Objective
augment        Augmentation, Views
"""
