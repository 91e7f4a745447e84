"""Stages shared by all research commands: dataset, fits, bundle, backtest, trial ledger.

settings            Experiment, Evaluation
dataset             build_dataset, label_rows, prepare, load_bars
dataset_cache       DatasetCache
dataset_store       save_dataset, load_dataset
training            fit
cross_validation    run_fit, fitted_on, StackedFits
as_of               AsOf
bundle_export       export_bundle
backtesting         backtest
trial_ledger        TrialLedger, LedgerEntry
provenance          open_run, provenance
"""
