"""Ask a service with KServe's client: the URL, the model and the files are the arguments.

Runs in an environment of its own, which has only ``kserve``. Prints the answers as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str, model: str, files: list[bytes]) -> None:
    """Print what each request got."""
    async with httpx.AsyncClient() as plain:  # the client reads no metadata
        metadata = (await plain.get(f"{url}/v2/models/{model}")).json()
    pixels = np.zeros([2, *metadata["inputs"][0]["shape"][1:]], np.uint8)
    pixels[1] = 200
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        answers: dict[str, Any] = {
            "health": [
                await client.is_server_live(url),
                await client.is_server_ready(url),
                await client.is_model_ready(url, model),
                await client.is_model_ready(url, "nowhere"),
            ],
            "pixels": [
                await ask(client, url, model, make_pixels(pixels, is_binary), is_binary)
                for is_binary in (True, False)
            ],
            "files": await ask(client, url, model, make_files(files), False),
        }
        try:
            await ask(client, url, model, make_files([files[0], files[0][:50]]), False)
        except httpx.HTTPStatusError as error:
            answers["error"] = [str(error.response.status_code), str(error)]
    print(json.dumps(answers))


def make_pixels(pixels: Any, is_binary: bool) -> Any:
    """Describe a tensor of pixels."""
    image = InferInput("image", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels, binary_data=is_binary)
    return image


def make_files(files: list[bytes]) -> Any:
    """Describe files in base64."""
    data = [base64.b64encode(file).decode() for file in files]
    return InferInput("image", [len(files)], "BYTES", data)


async def ask(client: Any, url: str, model: str, image: Any, is_binary: bool) -> dict[str, Any]:
    """Send one request; return its outputs by name, and its id."""
    parameters = {"binary_data_output": True} if is_binary else None
    request = InferRequest(model, [image], request_id="7", parameters=parameters)
    response = await client.infer(url, request, model_name=model)
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    return {
        "id": response.id,
        **{name: [decode(value) for value in array.tolist()] for name, array in outputs.items()},
    }


def decode(value: Any) -> Any:
    """Turn bytes into a string."""
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    url, model, *paths = sys.argv[1:]
    asyncio.run(main(url, model, [Path(path).read_bytes() for path in paths]))
