"""Finds faults in the environment variables that the settings do not read or cannot use."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from service.errors import VariableError
from service.settings import Settings

log = logging.getLogger(__name__)

PREFIX = "SERVICE_"
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Kubernetes gives each pod these variables for each Service in its namespace, and so did Docker's
# links. The names start with the Service's name: SERVICE_... for a Service named "service" or
# "service-x". https://kubernetes.io/docs/concepts/services-networking/service/
LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
LINK_SUFFIX = re.compile(
    r"(_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)


def is_link(name: str, value: str) -> bool:
    """Say whether Kubernetes, and not a user, set this variable, because a Service has its name."""
    return bool(LINK_ADDRESS.fullmatch(value) or LINK_SUFFIX.search(name))


def describe_invalid(name: str, value: object, reason: str) -> str:
    """Say what is wrong with a setting, and what to do if Kubernetes set it.

    ``name`` is its variable, its option or its key in a file.
    """
    if name.startswith(PREFIX) and LINK_ADDRESS.fullmatch(str(value)):
        service = name.removesuffix("_PORT").lower().replace("_", "-")
        return (
            f"{name}={value} comes from the Kubernetes Service named {service}, not from you; "
            "set enableServiceLinks: false in the pod's spec, give the Service another name, "
            f"or set {name} yourself"
        )
    return f"{name}={value}: {reason}"


def find_unknown(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a sentence for each variable ``SERVICE_...`` that is not a setting."""
    fields = Settings.model_fields
    known = [f"{PREFIX}{name}".upper() for name in fields]
    # A setting without a description is a former name: setting it is an error.
    current = [f"{PREFIX}{name}".upper() for name, field in fields.items() if field.description]
    for given, value in sorted(environment.items()):
        name = given.upper()  # the settings ignore case
        if name.startswith(PREFIX) and name not in known and not is_link(name, value):
            yield f"{given} is not a setting and has no effect; {suggest(name, current)}"


def suggest(name: str, names: Sequence[str]) -> str:
    """Suggest the one of ``names`` that is nearest to ``name``."""
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {nearest[0]}?" if nearest else "docs/settings.md lists the settings"


def log_unknown() -> None:
    """Log a warning for each variable ``SERVICE_...`` that is not a setting."""
    for sentence in find_unknown():
        log.warning("%s", sentence)


def check_metrics_folder(environment: Mapping[str, str] = os.environ) -> None:
    """Check the variable that names the folder in which Prometheus' client shares metrics.

    The service does not use it. A folder that is not there is a sign that somebody expects it to.

    Raises:
        VariableError: The variable names a folder that does not exist.
    """
    for name in (METRICS_VARIABLE, METRICS_VARIABLE.lower()):
        folder = environment.get(name, "")
        if folder and not Path(folder).is_dir():
            raise VariableError(
                f"{name}={folder} is not a folder; unset it: the service makes a folder itself"
            )
