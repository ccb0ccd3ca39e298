"""Reads the uploaded files from a request's body, in memory.

No file is written to disk, and the file names are ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.errors import MalformedFormError, UnsupportedTypeError
from service.imaging.tensors import MAX_BATCH_IMAGES

FORM = "multipart/form-data"
FIELD = "file"
ANY_BYTES = ("application/octet-stream", "binary/octet-stream")
"""Content types that say nothing about the content. Some object stores write the second."""
BARE_LINE_END = rb"%b(?:\r\n[^\r\n]{1,4096}+){0,16}+\n"
"""A line end without CR after a delimiter, or in the headers of a part."""
SEARCHED_BYTES = 16 * 1024  # of a damaged form: the search holds up all other requests
MAX_PARTS = 8
MAX_PART_HEAD_BYTES = 4096
MAX_PART_LINES = 16
# Most semicolons allowed in one header, quoted ones included. A file name can have many: browsers
# write "&#1078;" for a character that the form's charset lacks.
MAX_OPTIONS = 256


async def read_upload(request: Request) -> bytes:
    """Return the bytes of the uploaded file: the form's only part named ``file``, or the raw body.

    Raises:
        UnsupportedTypeError: The content type is not accepted.
        MalformedFormError: The form is damaged or does not hold exactly one part named ``file``.
        UploadTooLargeError: See ``limits.UploadLimits``.
    """
    boundary = _read_boundary(request, "image/", *ANY_BYTES)
    body = await _join_body(request)
    if boundary is None:
        return body
    files = _read_files(body, boundary, MAX_PARTS)
    if len(files) != 1:
        raise MalformedFormError(
            f"the form has {len(files)} file parts named {FIELD!r}; send exactly one"
        )
    return files[0]


async def read_batch(request: Request) -> list[bytes] | bytes:
    """Return the bytes of each part named ``file``, in the form's order, or the raw body.

    Raises:
        UnsupportedTypeError: The content type is not accepted.
        MalformedFormError: The form is damaged or does not hold 1 to ``MAX_BATCH_IMAGES`` files.
        UploadTooLargeError: See ``limits.UploadLimits``.
    """
    boundary = _read_boundary(request, *ANY_BYTES)
    body = await _join_body(request)
    if boundary is None:
        return body
    files = _read_files(body, boundary, MAX_BATCH_IMAGES + MAX_PARTS - 1)
    if not 1 <= len(files) <= MAX_BATCH_IMAGES:
        raise MalformedFormError(
            f"the form has {len(files)} file parts named {FIELD!r}; send 1 to {MAX_BATCH_IMAGES}"
        )
    return files


async def read_body(request: Request) -> bytes:
    """Return the body, of any content type.

    Raises:
        UnsupportedTypeError: The body is compressed.
        UploadTooLargeError: See ``limits.UploadLimits``.
    """
    _check_encoding(request)
    return await _join_body(request)


async def _join_body(request: Request) -> bytes:
    # Request.body() would keep the body in memory together with the files copied from it.
    return b"".join([chunk async for chunk in request.stream()])


def _read_boundary(request: Request, *raw_types: str) -> bytes | None:
    """Return the boundary of a form, or None for a raw body of one of ``raw_types``.

    Reads only the request's headers, so a wrong type is rejected before its body arrives.
    """
    _check_encoding(request)
    header = request.headers.get("content-type", "")
    content_type, options = _read_options(header.encode("latin-1"), "the Content-Type")
    if content_type == FORM.encode():
        if options.get(b"boundary"):
            return options[b"boundary"]
        raise MalformedFormError(
            f"the Content-Type {header[:100]!r} has no boundary; "
            "let your HTTP library set this header"
        )
    # The content then tells what it is: RFC 9110, section 8.3.
    if not header.strip() or content_type.startswith(tuple(name.encode() for name in raw_types)):
        return None
    accepted = " or ".join(f"{name}*" if name.endswith("/") else name for name in raw_types[:-1])
    raise UnsupportedTypeError(
        f"the Content-Type is {header[:100]!r}; send {FORM} with a file part named {FIELD!r}, "
        f"or the bytes alone as {accepted}"
    )


def _check_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedTypeError(
            f"the Content-Encoding is {encoding[:100]!r}; no encoding is accepted; "
            "send the image without one"
        )


def _read_files(body: bytes, boundary: bytes, max_parts: int) -> list[bytes]:
    try:
        return _split_form(body, boundary, max_parts)
    except MalformedFormError as error:
        delimiter = b"--" + boundary
        has_bare_end = body.count(b"\n" + delimiter) > body.count(b"\r\n" + delimiter)
        pattern = BARE_LINE_END % re.escape(delimiter)
        if has_bare_end or re.search(pattern, body[:SEARCHED_BYTES]):
            raise _damaged("lines end in LF; every line of a form must end in CRLF") from error
        raise


def _split_form(body: bytes, boundary: bytes, max_parts: int) -> list[bytes]:
    # A part ends where the next delimiter begins (RFC 2046, section 5.1.1), so this splits the form
    # at its delimiters. A parser that reads byte by byte takes five times as long for a small
    # image.
    first_delimiter = b"--" + boundary
    start, *segments = body.split(b"\r\n" + first_delimiter, max_parts + 2)
    if start.startswith(first_delimiter):
        segments.insert(0, start.removeprefix(first_delimiter))
    elif start:
        raise _damaged("it does not begin with its boundary")
    if len(segments) > max_parts + 1:
        raise MalformedFormError(
            f"the form has more than {max_parts} parts; at most {max_parts} are allowed; send fewer"
        )
    if not segments or not segments.pop().startswith(b"--"):
        raise _damaged("it ends before its closing boundary")
    files = [part for part in map(_read_part, segments) if part.is_file or part.name == FIELD]
    if others := [part.name[:40] for part in files if part.name != FIELD]:
        names = ", ".join(map(repr, others[:8]))
        raise MalformedFormError(f"the form has file parts named {names}; name them {FIELD!r}")
    return [part.content for part in files]


@dataclass(frozen=True)
class _Part:
    name: str
    is_file: bool
    content: bytes


def _read_part(segment: bytes) -> _Part:
    head, blank_line, content = segment.partition(b"\r\n\r\n")
    if not blank_line:
        raise _damaged("no blank line ends the headers of a part")
    if not segment.startswith(b"\r\n"):
        raise _damaged("a line begins with the boundary but does not end after it")
    line_count = head.count(b"\r\n")
    if len(head) > MAX_PART_HEAD_BYTES or line_count > MAX_PART_LINES:
        raise MalformedFormError(
            f"a part of the form has {len(head)} bytes of headers in {line_count} lines; at most "
            f"{MAX_PART_HEAD_BYTES} bytes in {MAX_PART_LINES} lines are allowed; send fewer"
        )
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    headers = {name.lower(): value for name, _, value in lines}
    disposition = headers.get(b"content-disposition", b"")
    _, options = _read_options(disposition, "the Content-Disposition of a part")
    name = options.get(b"name", b"").decode("utf-8", "replace")
    return _Part(name, b"filename" in options, content)


def _read_options(header: bytes, header_name: str) -> tuple[bytes, dict[bytes, bytes]]:
    if header.count(b";") > MAX_OPTIONS:  # the parser is slow if there are many
        raise MalformedFormError(
            f"{header_name} has more than {MAX_OPTIONS} options; "
            "let your HTTP library set this header"
        )
    return parse_options_header(header)


def _damaged(reason: str) -> MalformedFormError:
    return MalformedFormError(f"the multipart form is damaged: {reason}; send the whole form again")
