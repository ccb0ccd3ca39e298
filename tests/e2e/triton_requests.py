"""Ask a service with Triton's HTTP client: the URL, the model and the files are the arguments.

Runs in an environment of its own, which has only ``tritonclient[http]``. Prints the answers as
JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main(url: str, model: str, *paths: str) -> None:
    """Print what each request got."""
    files = [Path(path).read_bytes() for path in paths]
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        metadata = client.get_model_metadata(model)
        answers: dict[str, Any] = {
            "extensions": client.get_server_metadata()["extensions"],
            "metadata": metadata,
            "health": [
                client.is_server_live(),
                client.is_server_ready(),
                client.is_model_ready(model),
                client.is_model_ready(model, metadata["versions"][0]),
                client.is_model_ready("nowhere"),
            ],
        }
        names = [output["name"] for output in metadata["outputs"]]
        pixels = np.zeros([2, *metadata["inputs"][0]["shape"][1:]], np.uint8)
        pixels[1] = 200
        answers["pixels"] = [
            ask(client, model, "UINT8", pixels, names, is_binary) for is_binary in (True, False)
        ]
        array = np.array(files, np.object_)
        answers["files"] = ask(client, model, "BYTES", array, names, is_binary=True)
        try:
            damaged = np.array([files[0], files[0][:50]], np.object_)
            ask(client, model, "BYTES", damaged, names, is_binary=True)
        except InferenceServerException as error:
            answers["error"] = [error.status(), error.message()]
    print(json.dumps(answers))


def ask(
    client: Any, model: str, datatype: str, array: Any, names: list[str], is_binary: bool
) -> dict[str, Any]:
    """Send one request; return its outputs by name, and its id."""
    image = triton.InferInput("image", list(array.shape), datatype)
    image.set_data_from_numpy(array, binary_data=is_binary)
    # Without outputs, the client asks for all of them as binary data.
    wanted = [triton.InferRequestedOutput(name, binary_data=False) for name in names]
    outputs = None if is_binary else wanted
    result = client.infer(model, [image], request_id="7", outputs=outputs)
    return {
        "id": result.get_response()["id"],
        **{name: [decode(value) for value in result.as_numpy(name).tolist()] for name in names},
    }


def decode(value: Any) -> Any:
    """Turn bytes into a string."""
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(*sys.argv[1:])
