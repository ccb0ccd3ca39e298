"""Own the way from a request's body to the bytes of the one file in it, in memory: a file name never meets the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors import MalformedFormError, UnsupportedTypeError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "file"
MAX_PARTS = 8

_BINARY = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: _BINARY}}
OPENAPI_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}


async def read_upload(request: Request) -> bytes:
    """Return the bytes of the uploaded file: the form's one part named ``file``, or the whole raw body.

    Raises:
        UnsupportedTypeError: The content type is none of those accepted.
        MalformedFormError: The form is damaged, or does not hold exactly one part named ``file``.
        UploadTooLargeError: See ``limits.BodyLimit``.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedTypeError(f"the content encoding is {encoding[:100]!r}; send the image as it is")
    header = request.headers.get("content-type", "")
    content_type, options = parse_options_header(header)
    if content_type == b"multipart/form-data":
        if not options.get(b"boundary"):
            raise MalformedFormError(
                f"the content type {header[:100]!r} names no boundary; let the client library set it"
            )
        return _read_form(await request.body(), options[b"boundary"])
    if content_type.startswith(b"image/") or content_type == b"application/octet-stream":
        return await request.body()
    raise UnsupportedTypeError(
        f"the content type is {header[:100]!r}; send multipart/form-data with one file part named {FIELD!r}, "
        "or the image itself as image/* or application/octet-stream"
    )


def _read_form(body: bytes, boundary: bytes) -> bytes:
    form = _Form()
    # No line of a file may begin like a delimiter (RFC 2046, section 5.1.1). The parser goes through such lines byte by
    # byte: 10 MB of them would keep the event loop for a second.
    delimiter = b"--" + boundary
    if body.startswith(delimiter) + body.count(b"\r\n" + delimiter) > MAX_PARTS + 1:
        raise MalformedFormError(f"the form has more than {MAX_PARTS} parts; send one, named {FIELD!r}")
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise MalformedFormError(f"the multipart form is damaged ({error}); send it again") from error
    if not form.complete:
        raise MalformedFormError("the multipart form ends before its closing boundary; send it whole")
    files = [part for part in form.parts if part.is_file or part.name == FIELD]
    if [part.name for part in files] != [FIELD]:
        got = ", ".join(repr(part.name[:40]) for part in files) or "none"
        raise MalformedFormError(f"the form has these file parts: {got}; send exactly one, named {FIELD!r}")
    return files[0].content


@dataclass
class _Part:
    name: str = ""
    is_file: bool = False
    content: bytes = b""


class _Form:
    """Collects the parts of a form from the parser's callbacks."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._header_name = b""
        self._header_value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": self._add_data,
            "on_header_begin": self._begin_header,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self.parts.append(_Part())

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].content += data[start:end]

    def _begin_header(self) -> None:
        self._header_name = self._header_value = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._header_value)
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
            self.parts[-1].is_file = b"filename" in options

    def _end(self) -> None:
        self.complete = True
