"""What a graph in a bundle may hold, checked before onnxruntime sees it.

operators    check_operators, ALLOWED
sizes        read_graph, batch_of, numbers
"""
