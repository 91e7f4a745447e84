"""Plain torch modules from a window [N, T, F] to logits [N, C] or an embedding.

transformer    TransformerEncoder
tcn            TemporalConvNet
resnet         ResNet
"""
