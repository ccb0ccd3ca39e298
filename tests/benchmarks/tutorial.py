"""The app that tutorials write, for comparison; the variable ``MODEL`` is its model.onnx's path."""

import os
from io import BytesIO

import numpy as np
import onnxruntime
from fastapi import FastAPI, UploadFile
from PIL import Image

NAMES = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]

app = FastAPI()
providers = os.environ.get("PROVIDERS") or "CPUExecutionProvider"
session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=providers.split(","))


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, object]:
    """Classify one image."""
    image = Image.open(BytesIO(await file.read())).convert("L").resize((28, 28))
    probabilities = session.run(["probabilities"], {"image": np.asarray(image)[None]})[0][0]
    return {
        "class_name": NAMES[int(probabilities.argmax())],
        "probabilities": probabilities.tolist(),
    }
