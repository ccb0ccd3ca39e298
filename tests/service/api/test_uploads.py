"""From a request's body to the bytes of the file in it."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.uploads import read_upload
from service.errors import MalformedFormError


def upload(body: bytes, content_type: str) -> bytes:
    """Read the upload of a request that has this body."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(b"content-type", content_type.encode())],
    }
    return asyncio.run(read_upload(Request(scope, receive)))


@given(content=st.binary(max_size=3000), name=st.text(min_size=1, max_size=50))
@settings(deadline=None)
def test_file_comes_out_of_the_form_byte_for_byte(content: bytes, name: str) -> None:
    """Whatever the bytes and the name of a file, a form carries it unchanged."""
    request = httpx2.Request("POST", "http://service", files={"file": (name, content)})
    assert upload(request.read(), request.headers["content-type"]) == content


@given(body=st.binary(max_size=300), boundary=st.binary(max_size=20))
@settings(deadline=None)
def test_arbitrary_form_is_read_or_refused(body: bytes, boundary: bytes) -> None:
    """Any body under any boundary is refused as malformed; nothing else happens."""
    with pytest.raises(MalformedFormError):
        upload(body, f"multipart/form-data; boundary={boundary.hex()}")


@given(cut=st.integers(0, 160), position=st.integers(0, 160), value=st.integers(0, 255))
@settings(deadline=None)
def test_damaged_form_is_read_or_refused(cut: int, position: int, value: int) -> None:
    """A good form with a byte changed and its end cut off gives bytes or a malformed form; nothing else."""
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
    """Seven fields may come with the file, eight may not."""
    data = {f"field{number}": "x" for number in range(fields)}
    request = httpx2.Request("POST", "http://service", files={"file": b"content"}, data=data)
    if fields == 7:
        assert upload(request.read(), request.headers["content-type"]) == b"content"
    else:
        with pytest.raises(MalformedFormError, match="more than 8 parts"):
            upload(request.read(), request.headers["content-type"])


def test_options_of_a_part_are_few() -> None:
    """A header with so many options that they would keep the parser busy is refused, a part's and the request's."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"' + b";" * 300
    with pytest.raises(MalformedFormError, match="more than 256 options"):
        upload(head + b"\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b")
    with pytest.raises(MalformedFormError, match="more than 256 options"):
        upload(b"", "multipart/form-data; boundary=b" + ";" * 60_000)


def test_name_in_an_alphabet_that_the_form_lacks_is_read() -> None:
    """A file's name as browsers escape it, where a page's charset has no Cyrillic, is no header of many options."""
    name = "&#1092;&#1086;&#1090;&#1086;" * 10
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    assert upload(head.encode() + b"x\r\n--b--\r\n", "multipart/form-data; boundary=b") == b"x"


def test_lines_like_delimiters_are_refused_unparsed() -> None:
    """A file all of whose lines begin like the boundary, which the parser is slow on, is refused before."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    with pytest.raises(MalformedFormError, match="more than 8 parts"):
        upload(head + b"\r\n--bX" * 1_000_000 + b"\r\n--b--\r\n", "multipart/form-data; boundary=b")
