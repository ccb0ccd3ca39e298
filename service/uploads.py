"""Own the way from a request's body to the bytes of the one file in it, in memory: a file name never meets the disk."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import MalformedFormError, UnsupportedTypeError

FIELD = "file"
MAX_PARTS = 8
MAX_PART_HEAD_BYTES = 4096

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
    # What a part holds is all up to the next delimiter (RFC 2046, section 5.1.1), so there is nothing to be parsed byte
    # by byte; a parser that does takes five times as long for a small image.
    delimiter = b"\r\n--" + boundary
    first, *segments = body.split(delimiter, MAX_PARTS + 2)
    if first:
        if not first.startswith(delimiter[2:]):
            raise _damaged("it does not begin with its boundary")
        segments.insert(0, first[len(delimiter) - 2 :])
    if len(segments) > MAX_PARTS + 1:
        raise MalformedFormError(f"the form has more than {MAX_PARTS} parts; send one, named {FIELD!r}")
    if not segments or not segments.pop().startswith(b"--"):
        raise _damaged("it ends before its closing boundary")
    files = [part for part in map(_read_part, segments) if part.is_file or part.name == FIELD]
    if [part.name for part in files] != [FIELD]:
        got = ", ".join(repr(part.name[:40]) for part in files) or "none"
        raise MalformedFormError(f"the form has these file parts: {got}; send exactly one, named {FIELD!r}")
    return files[0].content


@dataclass(frozen=True)
class _Part:
    name: str
    is_file: bool
    content: bytes


def _read_part(segment: bytes) -> _Part:
    head, blank_line, content = segment.partition(b"\r\n\r\n")
    if not blank_line or not segment.startswith(b"\r\n"):
        raise _damaged("a line in it begins like its boundary" if blank_line else "a part of it has no end of its head")
    if len(head) > MAX_PART_HEAD_BYTES:
        raise MalformedFormError(f"the form has a part with a head of {len(head)} bytes; send {MAX_PART_HEAD_BYTES}")
    headers = {name.lower(): value for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
    _, options = parse_options_header(headers.get(b"content-disposition", b""))
    return _Part(options.get(b"name", b"").decode("utf-8", "replace"), b"filename" in options, content)


def _damaged(how: str) -> MalformedFormError:
    return MalformedFormError(f"the multipart form is damaged: {how}; send it again, whole")
