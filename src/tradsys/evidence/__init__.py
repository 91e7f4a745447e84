"""Statistics of forecasts and returns: skill, intervals, deflation and the verdict.

classification      evaluate
skill               levelled_losses
calibration         reliability, calibration_line
performance         performance
sharpe              sharpe_ratio, deflated_sharpe_ratio
cosines             sharpe_intervals
bootstrap           estimate
deflation           deflation
joint_test          joint_test
paired              compare
overfitting         pbo, spa_test
multiple_testing    wilson_interval, holm
verdict             Verdict, verdict_of_strategy, verdict_of_run

`track_record`: returns and trades of one record. `cross_section`: names at one time. `controls`: negative controls.
"""
