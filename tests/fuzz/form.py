"""Fuzz target: ``read_upload`` returns bytes of the body, or raises one of our errors.

``make fuzz`` runs it. libFuzzer's manual explains the arguments. An input is a content type, a line
feed and a body. ``python -m tests.fuzz.form --seed FOLDER FILE...`` writes a valid form for each
file into a folder; the fuzzer starts from these forms.
"""

import asyncio
import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from starlette.requests import Request

    from service.api.uploads import read_upload
    from service.errors import MalformedFormError, UnsupportedTypeError

HEAD = (
    b"multipart/form-data; boundary=b\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
)
TAIL = b"\r\n--b--\r\n"


def parse(data: bytes) -> None:
    """Read the upload of the request that ``data`` describes."""
    content_type, _, body = data.partition(b"\n")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type)]}
    try:
        upload = asyncio.run(read_upload(Request(scope, receive)))
    except (MalformedFormError, UnsupportedTypeError):
        return
    assert upload in body


def write_seeds(folder: Path, files: list[Path]) -> None:
    """Write a form for each of ``files`` into ``folder``."""
    for path in files:
        (folder / path.name).write_bytes(HEAD + path.read_bytes() + TAIL)


if __name__ == "__main__":
    if sys.argv[1] == "--seed":
        write_seeds(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
    else:
        logging.disable()  # the parser logs a warning for every damaged form
        atheris.Setup(sys.argv, parse)
        atheris.Fuzz()
