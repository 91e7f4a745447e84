"""What a graph in a bundle may hold, checked before onnxruntime sees it.

operators    check_operators, ALLOWED
sizes        read_graph, batch_of, numbers

The module `nets` registers the graphs of nets with models.onnx_export, which loads it for a net alone.
"""
