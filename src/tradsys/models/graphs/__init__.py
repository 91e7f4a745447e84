"""Checks of a bundle's ONNX graph before onnxruntime reads it.

operators    check_operators, ALLOWED
sizes        read_graph, batch_of, numbers
arithmetic   result

The module `nets` registers the graphs of nets with models.onnx_export, which loads it for nets only.
"""
