"""Models, calibrators, regimes and their files; one protocol for tabular and sequence models.

baseline        BaseRate
linear          LogisticRegression, Ridge
boosting        LightGbm, LightGbmRegressor, Xgboost
sequence        SequenceModel
supcon          SupConModel
calibrators     Identity, Temperature, Isotonic
transforms      RobustScaler
regime          HmmRegime
conformal       SplitConformal
losses          focal_loss, supcon_loss
onnx_export     export_onnx, check_parity
onnx_runtime    OnnxModel
"""
