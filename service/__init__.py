"""A REST service that classifies clothing images with an ONNX model."""
