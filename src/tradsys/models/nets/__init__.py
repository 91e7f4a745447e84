"""Plain torch modules from a window [N, T, F] to logits [N, C] or an embedding.

transformer    TransformerEncoder
two_scales     TwoScales
cross_asset    CrossAsset
traits         WithTraits
tcn            TemporalConvNet
resnet         ResNet
auxiliary      Auxiliary
"""
