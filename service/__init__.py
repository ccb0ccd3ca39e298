"""A REST service that classifies clothing images with an ONNX model."""

import os

# ONNX Runtime's official builds send telemetry to Microsoft unless this is set before they load:
# https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
