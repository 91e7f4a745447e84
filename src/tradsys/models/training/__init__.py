"""Fits of nets: settings, checkpoints, augmentation; `stacks` of nets, `ranks` of devices.

trainer        TrainerSettings
fitting        fit_module
loop           DirectLoop
capture        captured_step
checkpoints    CheckpointCallback
lit            LitClassifier
lit_supcon     LitSupCon
objective      Objective
augment        Augmentation, Views
"""
