"""ONNX in: files to the internal graph, by what their operators compute."""
