"""A REST service that classifies clothing images with an ONNX model."""

import os

# ONNX Runtime's official builds send telemetry to Microsoft unless this is set before they load:
# https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Ray sends usage statistics to its makers unless this is set before it starts:
# https://docs.ray.io/en/latest/cluster/usage-stats.html
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
