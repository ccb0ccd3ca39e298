"""The settings of the service."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Device = Annotated[Literal["auto", "cuda", "cpu"], BeforeValidator(_lower)]


def _split(value: object) -> object:
    return (
        [item.strip() for item in value.split(",") if item.strip()]
        if isinstance(value, str)
        else value
    )


def _trim_root_path(value: object) -> object:
    """Begin a path with one slash and end it with none, so that "shop/" becomes "/shop"."""
    return f"/{value.strip('/')}".rstrip("/") if isinstance(value, str) else value


# Without NoDecode, pydantic-settings expects JSON in the environment variable.
Listed = (NoDecode, BeforeValidator(_split))
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Host = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[^*/\s]+)$")]
RootPath = Annotated[
    str, BeforeValidator(_trim_root_path), Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")
]

# Pillow warns about an image with more pixels than this, and rejects more than twice as many.
PILLOW_MAX_PIXELS = 89_478_485

MODELS = Path(__file__).parents[1] / "models"


def _reject_renamed(value: str | None) -> None:
    if value:
        raise ValueError(f"this setting is now SERVICE_MODELS; set SERVICE_MODELS={value}")


class Settings(BaseSettings):
    """Every setting of the service.

    The environment variable of a setting is its name in capitals after ``SERVICE_``, such as
    ``SERVICE_MAX_UPLOAD_BYTES``. A blank variable counts as unset, because Docker Compose passes
    unset variables on as empty. ``service.server.configuration`` also reads options and a file.
    """

    model_config = SettingsConfigDict(env_prefix="SERVICE_", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, object]) -> dict[str, object]:
        texts = {name: value.strip() for name, value in values.items() if isinstance(value, str)}
        return {name: value for name, value in (values | texts).items() if value != ""}

    config: Annotated[
        Path | None,
        Field(
            description="TOML file with settings. Options and variables go before the file. "
            "Unset: no file."
        ),
    ] = None
    host: Annotated[
        str,
        Field(
            description="Address to listen on. `0.0.0.0`: all IPv4 addresses of the machine. "
            "`::`: all its addresses, IPv6 and IPv4."
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535, description="Port to listen on. 0 picks a free port.")
    ] = 8000
    root_path: Annotated[
        RootPath,
        Field(
            description="Path at which a proxy offers the service, such as `/fashion`: `/`, "
            "`/docs` and `/openapi.json` then name the right addresses. The proxy may remove the "
            "path from a request or keep it. Unset: no path."
        ),
    ] = ""
    models: Annotated[
        tuple[Path, ...],
        *Listed,
        Field(
            min_length=1,
            description="Folders of model bundles (`models/NAME/VERSION`), or of their versions "
            "(`models/NAME`): the newest version is served. Separated by commas. Of models that "
            "take the same kind of image, the first one answers.",
        ),
    ] = (MODELS / "resnet-8", MODELS / "garments")
    # The former name of `models`. Without this field, pydantic would ignore the variable.
    model: Annotated[None, BeforeValidator(_reject_renamed)] = None
    device: Annotated[
        Device,
        Field(
            description="`cuda`: use a GPU, and do not start without one. `cpu`: never use a GPU. "
            "`auto`: use a GPU if it works, otherwise log a warning and use the CPU."
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            description="Threads of each worker: how many images it decodes, and how many batches "
            "it runs, at the same time. Unset: the worker's share of the cores.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Processes that share the port. Unset: one per core, at most 8, and fewer "
            "if memory is short. Each needs 2 GiB of a GPU's memory.",
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
            ge=1,
            description="Uploads that each worker accepts at the same time. More get 503.",
        ),
    ] = 128
    max_bytes_in_flight: Annotated[
        int,
        Field(
            ge=1,
            description="Total bytes of the uploads that each worker accepts at the same time. "
            "More get 503.",
        ),
    ] = 256 * 1024 * 1024
    upload_timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds in which nothing of a request body arrives; then 408. A body that "
            "arrives at less than 1,000 bytes per second gets 408 too.",
        ),
    ] = 30.0
    request_timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds from the last part of an upload to its answer; then 504.",
        ),
    ] = 60.0
    stuck_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds that every thread of a worker may spend on one image, or that a "
            "batch may take. Then the worker ends, and is replaced if there are several. At least "
            "the request timeout. The slowest image within the limits takes a few seconds on a "
            "free core.",
        ),
    ] = 60.0
    keep_alive_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds that an idle connection stays open. Behind a proxy that reuses "
            "connections, set more seconds than the proxy keeps them: 65 for nginx or an AWS load "
            "balancer.",
        ),
    ] = 5.0
    check_interval_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="Seconds between two checks. A check looks for a newer version of the "
            "model, and runs the self-test of a model that has been idle.",
        ),
    ] = 10.0
    grace_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds after SIGTERM in which `/health` and new uploads get 503, before "
            "connections are closed.",
        ),
    ] = 1.0
    shutdown_timeout_seconds: Annotated[
        int,
        Field(
            ge=1,
            description="Seconds after the grace period in which running requests may finish.",
        ),
    ] = 30
    page: Annotated[
        bool,
        Field(description="`off` takes away the page at `/`. `/docs` stays."),
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(_lower),
        Field(description="Lowest level that is logged."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "text"],
        BeforeValidator(_lower),
        Field(description="`auto`: `text` on a terminal, `json` elsewhere."),
    ] = "auto"
    log_client_address: Annotated[
        bool,
        Field(
            description="`true`: the log line of each request has the client's address. Behind a "
            "proxy, `FORWARDED_ALLOW_IPS` must be set too."
        ),
    ] = False
    api_keys_file: Annotated[
        Path | None,
        Field(
            description="File of API keys. For each key it has a line that "
            "`python -m service key NAME` prints. Unset: no key is needed. `/`, `/health`, "
            "`/v2/health`, `/docs` and `/openapi.json` never need a key."
        ),
    ] = None
    rate_limit_per_minute: Annotated[
        int | None,
        Field(
            ge=1,
            description="Images per minute for each owner of API keys, or for each client address "
            "where no key is needed. An image of a batch counts as one. Unset: no limit.",
        ),
    ] = None
    cors_origins: Annotated[
        tuple[Origin, ...],
        *Listed,
        Field(
            description="Origins whose web pages may call the service, such as "
            "`https://example.org`, separated by commas. `*` allows every origin. Unset: none."
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[Host, ...],
        *Listed,
        Field(
            description="Host names that the Host header of a request may have, separated by "
            "commas. `*.example.org` allows every subdomain. Unset: any host. `/health` and "
            "`/v2/health` accept any host."
        ),
    ] = ()
