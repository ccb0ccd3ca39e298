"""Reading the uploaded file from a request's body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.uploads import read_batch, read_upload
from service.errors import MalformedFormError, UnsupportedTypeError


def make_request(body: bytes, content_type: str, **headers: str) -> Request:
    """Build a request with this body."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    fields = {"content-type": content_type} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def upload(body: bytes, content_type: str, **headers: str) -> bytes:
    """Read the upload of a request with this body."""
    return asyncio.run(read_upload(make_request(body, content_type, **headers)))


def form(*parts: tuple[str, bytes]) -> bytes:
    """Write a form with the boundary ``b``; a part is its headers and its content."""
    written = (f"--b\r\n{head}\r\n\r\n".encode() + content for head, content in parts)
    return b"\r\n".join([*written, b"--b--\r\n"])


FORM = "multipart/form-data; boundary=b"
FILE = 'Content-Disposition: form-data; name="file"; filename="x"'


@given(content=st.binary(max_size=3000), name=st.text(min_size=1, max_size=50))
@settings(deadline=None)
def test_file_comes_out_of_the_form_byte_for_byte(content: bytes, name: str) -> None:
    """A form carries a file of any bytes and any name unchanged."""
    request = httpx2.Request("POST", "http://service", files={"file": (name, content)})
    assert upload(request.read(), request.headers["content-type"]) == content


@given(body=st.binary(max_size=300), boundary=st.binary(max_size=20))
@settings(deadline=None)
def test_arbitrary_form_is_rejected(body: bytes, boundary: bytes) -> None:
    """Random bytes with any boundary raise MalformedFormError and no other error."""
    with pytest.raises(MalformedFormError):
        upload(body, f"multipart/form-data; boundary={boundary.hex()}")


@given(cut=st.integers(0, 160), position=st.integers(0, 160), value=st.integers(0, 255))
@settings(deadline=None)
def test_damaged_form_is_read_or_rejected(cut: int, position: int, value: int) -> None:
    """A form with one byte changed and its end cut off is read, or raises MalformedFormError."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    form = head + b"content" * 8 + b"\r\n--b--\r\n"
    damaged = bytearray(form)
    damaged[position % len(form)] = value
    try:
        content = upload(
            bytes(damaged[: len(form) - cut % len(form)]), "multipart/form-data; boundary=b"
        )
    except MalformedFormError:
        return
    assert len(content) <= len(form) - len(head)


@pytest.mark.parametrize("fields", [7, 8])
def test_form_has_eight_parts_at_most(fields: int) -> None:
    """A form may hold the file and seven fields, but not eight."""
    data = {f"field{number}": "x" for number in range(fields)}
    request = httpx2.Request("POST", "http://service", files={"file": b"content"}, data=data)
    if fields == 7:
        assert upload(request.read(), request.headers["content-type"]) == b"content"
    else:
        with pytest.raises(MalformedFormError, match="more than 8 parts"):
            upload(request.read(), request.headers["content-type"])


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_encoded_body_is_rejected(encoding: str) -> None:
    """A body with a Content-Encoding is rejected by its name, even if all else is right."""
    for content_type in ("image/png", FORM):
        body = form((FILE, b"content"))
        with pytest.raises(UnsupportedTypeError, match=f"the Content-Encoding is '{encoding}'"):
            upload(body, content_type, content_encoding=encoding)
        assert upload(body, content_type, content_encoding="Identity")


@pytest.mark.parametrize("read", [read_upload, read_batch])
def test_form_without_a_file_is_rejected(
    read: Callable[[Request], Coroutine[None, None, object]],
) -> None:
    """A form that holds only fields is rejected, and so is one without any part."""
    fields = [('Content-Disposition: form-data; name="note"', b"content")] * 2
    for parts in (fields, []):
        with pytest.raises(MalformedFormError, match="has 0 file parts named 'file'"):
            asyncio.run(read(make_request(form(*parts), FORM)))


def test_part_called_file_needs_no_file_name() -> None:
    """A part named ``file`` is the upload even if it has no file name, as some clients send it."""
    note = ('Content-Disposition: form-data; name="note"', b"a note")
    plain = ('Content-Disposition: form-data; name="file"', b"content")
    assert upload(form(note, plain), FORM) == b"content"


def test_file_part_of_another_name_is_rejected() -> None:
    """A part with a file name must be named ``file``. The error has its name."""
    other = ('Content-Disposition: form-data; name="photo"; filename="x"', b"content")
    with pytest.raises(MalformedFormError, match="file parts named 'photo'; name them 'file'"):
        upload(form(other), FORM)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (f"\r\nX-Note: {'x' * 5000}", "5069 bytes of headers in 2 lines"),
        ("\r\nX-Note: x" * 16, "235 bytes of headers in 17 lines"),
    ],
    ids=["one long line", "many lines"],
)
def test_large_head_of_a_part_is_rejected(more: str, found: str) -> None:
    """The headers of a part may have 4,096 bytes and 16 lines."""
    with pytest.raises(MalformedFormError, match=found):
        upload(form((FILE + more, b"content")), FORM)


def test_largest_head_of_a_part_is_accepted() -> None:
    """Headers of 4,096 bytes, and headers of 16 lines, are accepted."""
    long_line = f"\r\nX-Note: {'x' * 4000}"
    for more in (long_line, "\r\nX-Note: x" * 15):
        assert upload(form((FILE + more, b"content")), FORM) == b"content"


def test_header_with_many_options_is_rejected() -> None:
    """A header with too many options is rejected, in a part and in the request."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"' + b";" * 300
    with pytest.raises(MalformedFormError, match="more than 256 options"):
        upload(head + b"\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b")
    with pytest.raises(MalformedFormError, match="more than 256 options"):
        upload(b"", "multipart/form-data; boundary=b" + ";" * 60_000)


@pytest.mark.parametrize(
    ("after_delimiter", "after_header", "before_last"),
    [("\n", "\n", "\n"), ("\r\n", "\n", "\r\n"), ("\n", "\r\n", "\r\n"), ("\r\n", "\r\n", "\n")],
)
@pytest.mark.parametrize("before", ["", "\n"])
def test_form_with_bare_line_feeds_is_told_so(
    before: str, after_delimiter: str, after_header: str, before_last: str
) -> None:
    """The error of a form whose lines end in LF, all or some, says that CRLF is needed."""
    head = f'{before}--b{after_delimiter}Content-Disposition: form-data; name="file"{after_header}'
    form = f"{head}{after_header}content{before_last}--b--{before_last}".encode()
    with pytest.raises(MalformedFormError, match="every line of a form must end in CRLF"):
        upload(form, "multipart/form-data; boundary=b")


def test_upload_without_a_content_type_is_read() -> None:
    """RFC 9110 allows a body without a content type, whose content then says what it is."""
    for content_type in ("", " ", "binary/octet-stream", "application/octet-stream; x=y"):
        assert upload(b"content", content_type) == b"content"


def test_file_name_with_many_semicolons_is_accepted() -> None:
    """A Cyrillic file name, escaped by a browser with many semicolons, is accepted."""
    name = "&#1092;&#1086;&#1090;&#1086;" * 10
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    assert upload(head.encode() + b"x\r\n--b--\r\n", "multipart/form-data; boundary=b") == b"x"


def test_lines_like_delimiters_are_rejected() -> None:
    """A file whose lines all begin with the boundary counts as a form with too many parts."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    with pytest.raises(MalformedFormError, match="more than 8 parts"):
        upload(head + b"\r\n--bX" * 1_000_000 + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")


@pytest.mark.timeout(10)  # it took half a minute
def test_damaged_form_of_many_delimiters_is_rejected_quickly() -> None:
    """Looking for the reason of the damage takes the same time, however large the form is."""
    body = b"x" + b"--b\r\n" * 12_000_000
    with pytest.raises(MalformedFormError, match="does not begin with its boundary"):
        upload(body, FORM)
