"""Own the settings and their names; built once at the entry point and passed down."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Device = Literal["auto", "cuda", "cpu"]


def _split(value: object) -> object:
    return (
        [item.strip() for item in value.split(",") if item.strip()]
        if isinstance(value, str)
        else value
    )


# Without NoDecode, an environment variable would have to hold JSON.
Listed = (NoDecode, BeforeValidator(_split))
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Host = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[^*/\s]+)$")]

# Pillow warns past this many pixels and refuses at twice as many, whatever we allow.
PILLOW_MAX_PIXELS = 89_478_485


class Settings(BaseSettings):
    """Every setting of the service, read from the environment variable ``SERVICE_`` + its name in capitals."""

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True)

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    ] = 8000
    model: Annotated[
        Path, Field(description="Folder of a bundle, or of its versions: the newest is served.")
    ] = Path(__file__).parents[1] / "models" / "resnet-8-photos" / "1"
    device: Annotated[
        Device,
        Field(
            description="`cuda` refuses to start without a GPU, `cpu` never uses one, "
            "`auto` uses one if it can and says what it got."
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            description="Images that a worker decodes, and infers, at a time; unset: its share of the cores.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Processes that share the port; unset: one a core, at most 8, as memory allows; one on a GPU.",
        ),
    ] = None
    max_upload_bytes: Annotated[int, Field(ge=1, description="Largest request body, in bytes.")] = (
        10 * 1024 * 1024
    )
    max_image_pixels: Annotated[
        int,
        Field(
            ge=1,
            le=PILLOW_MAX_PIXELS,
            description="Largest image, in pixels (width times height). A pixel of a WebP or HEIC "
            "counts twice and of an AVIF four times, because it takes more memory.",
        ),
    ] = 50_000_000
    max_uploads_in_flight: Annotated[
        int,
        Field(
            ge=1, description="Uploads that a worker takes on at a time; the next is answered 503."
        ),
    ] = 128
    max_bytes_in_flight: Annotated[
        int, Field(ge=1, description="Bytes of all uploads that a worker takes on at a time.")
    ] = 256 * 1024 * 1024
    upload_timeout_seconds: Annotated[
        float, Field(gt=0, description="Longest time for a body to arrive.")
    ] = 30.0
    request_timeout_seconds: Annotated[
        float, Field(gt=0, description="Longest time to answer an upload.")
    ] = 60.0
    check_interval_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="How often an idle model is put to its self-test, and a newer version looked for.",
        ),
    ] = 10.0
    grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="On SIGTERM: how long to be unready and refuse uploads before connections are closed.",
        ),
    ] = 1.0
    shutdown_timeout_seconds: Annotated[
        int, Field(ge=1, description="On SIGTERM: how long requests in flight may take after that.")
    ] = 30
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="Least severe level that is logged."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Field(description="`auto` is `text` on a terminal and `json` elsewhere."),
    ] = "auto"
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="File of API keys, made by `python -m service key NAME`; unset: no key is needed. "
            "`/health`, `/docs` and `/openapi.json` never need one."
        ),
    ] = None
    rate_limit_per_minute: Annotated[
        int | None,
        Field(
            ge=1,
            description="Uploads a minute that a worker takes of each API key, or of each address if no key is needed; "
            "unset: any number.",
        ),
    ] = None
    cors_origins: Annotated[
        tuple[Origin, ...],
        *Listed,
        Field(
            description="Origins whose pages may ask, as `https://example.org`, separated by commas; `*` is any."
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[Host, ...],
        *Listed,
        Field(
            description="Host names that requests may be for, separated by commas; `*.example.org` is all below it; "
            "unset: any. `/health` is answered under every name."
        ),
    ] = ()
