"""Own the way from a request's body to the bytes of the files in it, in memory: a file name never meets the disk."""

from __future__ import annotations

from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import MalformedFormError, UnsupportedTypeError
from service.imaging.tensors import MAX_BATCH_IMAGES

FORM = "multipart/form-data"
FIELD = "file"
MAX_PARTS = 8
MAX_PART_HEAD_BYTES = 4096
MAX_PART_LINES = 16
MAX_OPTIONS = 256  # of a header, counting what is in quotes: browsers write "&#1078;" for what a form's charset lacks


async def read_upload(request: Request) -> bytes:
    """Return the bytes of the uploaded file: the form's one part named ``file``, or the whole raw body.

    Raises:
        UnsupportedTypeError: The content type is none of those accepted.
        MalformedFormError: The form is damaged, or does not hold exactly one part named ``file``.
        UploadTooLargeError: See ``limits.UploadLimits``.
    """
    boundary = _read_boundary(request, "image/", "application/octet-stream")
    body = await _read_body(request)
    if boundary is None:
        return body
    files = _read_files(body, boundary, MAX_PARTS)
    if len(files) != 1:
        raise MalformedFormError(
            f"the form has {len(files)} file parts named {FIELD!r}; send exactly one"
        )
    return files[0]


async def read_batch(request: Request) -> list[bytes] | bytes:
    """Return the bytes of each file in a form, its parts named ``file``, in order; or the whole raw body.

    Raises:
        UnsupportedTypeError, MalformedFormError, UploadTooLargeError: As ``read_upload``.
    """
    boundary = _read_boundary(request, "application/octet-stream")
    body = await _read_body(request)
    if boundary is None:
        return body
    files = _read_files(body, boundary, MAX_BATCH_IMAGES + MAX_PARTS - 1)
    if not 1 <= len(files) <= MAX_BATCH_IMAGES:
        raise MalformedFormError(
            f"the form has {len(files)} file parts named {FIELD!r}; send at least one and at most {MAX_BATCH_IMAGES}"
        )
    return files


async def _read_body(request: Request) -> bytes:
    # ``Request.body`` would keep it beside the files in it.
    return b"".join([chunk async for chunk in request.stream()])


def _read_boundary(request: Request, *types: str) -> bytes | None:
    """Return the boundary of the form that the request's head announces; None for a raw body of one of ``types``."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedTypeError(
            f"the content encoding is {encoding[:100]!r}; send the image as it is"
        )
    header = request.headers.get("content-type", "")
    content_type, options = _read_options(header.encode("latin-1"), "the content type")
    if content_type == FORM.encode():
        if options.get(b"boundary"):
            return options[b"boundary"]
        raise MalformedFormError(
            f"the content type {header[:100]!r} names no boundary; let the client library set it"
        )
    if content_type.startswith(tuple(name.encode() for name in types)):
        return None
    accepted = " or ".join(f"{name}*" if name.endswith("/") else name for name in types)
    raise UnsupportedTypeError(
        f"the content type is {header[:100]!r}; send multipart/form-data with a file part named {FIELD!r}, "
        f"or the bytes themselves as {accepted}"
    )


def _read_files(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    # What a part holds is all up to the next delimiter (RFC 2046, section 5.1.1), so there is nothing to be parsed byte
    # by byte; a parser that does takes five times as long for a small image.
    delimiter = b"\r\n--" + boundary
    first, *segments = body.split(delimiter, most + 2)
    if first:
        if not first.startswith(delimiter[2:]):
            raise _damaged("it does not begin with its boundary")
        segments.insert(0, first[len(delimiter) - 2 :])
    if len(segments) > most + 1:
        raise MalformedFormError(
            f"the form has more than {most} parts, which is all that this path takes; send fewer"
        )
    if not segments or not segments.pop().startswith(b"--"):
        raise _damaged("it ends before its closing boundary")
    files = [part for part in map(_read_part, segments) if part.is_file or part.name == FIELD]
    if strays := [part.name[:40] for part in files if part.name != FIELD]:
        raise MalformedFormError(
            f"the form has file parts named {', '.join(map(repr, strays[:8]))}; name them {FIELD!r}"
        )
    return [part.content for part in files]


@dataclass(frozen=True)
class _Part:
    name: str
    is_file: bool
    content: bytes


def _read_part(segment: bytes) -> _Part:
    head, blank_line, content = segment.partition(b"\r\n\r\n")
    if not blank_line or not segment.startswith(b"\r\n"):
        raise _damaged(
            "a line in it begins like its boundary"
            if blank_line
            else "a part of it has no end of its head"
        )
    lines = head.split(b"\r\n", MAX_PART_LINES + 1)
    if len(head) > MAX_PART_HEAD_BYTES or len(lines) > MAX_PART_LINES:
        raise MalformedFormError(
            f"the form has a part with a head of {len(head)} bytes in {len(lines)} lines or more; at most "
            f"{MAX_PART_HEAD_BYTES} bytes in {MAX_PART_LINES} lines are read"
        )
    headers = {name.lower(): value for name, _, value in (line.partition(b":") for line in lines)}
    _, options = _read_options(headers.get(b"content-disposition", b""), "a part of the form")
    return _Part(
        options.get(b"name", b"").decode("utf-8", "replace"), b"filename" in options, content
    )


def _read_options(header: bytes, whose: str) -> tuple[bytes, dict[bytes, bytes]]:
    if header.count(b";") > MAX_OPTIONS:  # the parser takes long over many
        raise MalformedFormError(
            f"{whose} has more than {MAX_OPTIONS} options; let the client library set them"
        )
    return parse_options_header(header)


def _damaged(how: str) -> MalformedFormError:
    return MalformedFormError(f"the multipart form is damaged: {how}; send it again, whole")
