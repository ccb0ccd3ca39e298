"""What the OpenAPI document promises, put to a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.api.keys import new_key
from tests.e2e.server import serving

# An image is more than the "string of binary" that a schema can ask for.
COMMAND = "--max-examples 50 --exclude-checks positive_data_acceptance --generation-deterministic --no-color"

# Most bytes are no tensor. One file of a form cannot be told from a list of one, so what breaks the schema is answered.
CONFIG = """
[[operations]]
include-path = "/predict/batch"
warnings = false
[operations.checks.negative_data_rejection]
enabled = false
"""


def test_server_keeps_what_its_document_promises(tmp_path: Path, linear_folder: Path) -> None:
    """Of hundreds of good and bad requests none gets a 5xx, an undocumented status, type, header or body, and none
    comes in without a key; every error that the document lists is a problem body.
    """
    key, line = new_key("schemathesis")
    (tmp_path / "keys").write_text(line)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with serving(model=linear_folder, device="cpu", api_keys_file=tmp_path / "keys") as server:
        schemes = server.get("/openapi.json").json()["components"]["securitySchemes"]
        assert schemes.keys() == {"HTTPBearer", "APIKeyHeader"}
        command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
        command += ["--header", f"Authorization: Bearer {key}", *COMMAND.split()]
        report = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False
        ).stdout
    assert "No issues found" in report, report
