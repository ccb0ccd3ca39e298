"""A REST service that classifies clothing images with an ONNX model."""

import os

# ONNX Runtime's official builds report to their maker unless this is set before they are loaded; see its Privacy.md.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
