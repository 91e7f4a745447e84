"""What every layer shares: tables, protocols, errors, time and files; reaches numpy alone.

tables       FeatureTable, Labels, Samples, Fold
protocols    Feature, Labeller, Events, Transform, Model, Calibrator, Splitter
errors       TradsysError, DataError, LeakageError, TrainingError, BundleError
clock        utc, utc64, utc_now
runs         new_run, written_atomically, write_json, digest_json
masking      masked
plain_data   Json, Config
received     read_json, inside, refused_in_one_line
bounds       check_bounds, is_within
headline     headline_skill
"""
