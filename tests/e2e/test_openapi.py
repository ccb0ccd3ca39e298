"""A real server behaves as its OpenAPI document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from service.api.keys import new_key
from tests.e2e.server import serving

# A schema can only ask for a "binary string", and most binary strings are not images. So the server
# rejects data that is valid by the schema.
COMMAND = (
    "--max-examples 50 --exclude-checks positive_data_acceptance --generation-deterministic "
    "--exclude-path-regex /versions/ "  # they are the paths without a version
    "--no-color"
)

# A form with one file looks like a form with a list of one file, so the server accepts some data
# that is not valid by the schema.
CONFIG = """
[[operations]]
include-path = "/predict/batch"
warnings = false
[operations.checks.negative_data_rejection]
enabled = false

# Few generated names of models are served, and few generated requests fit a model.
[[operations]]
include-path-regex = "/v2/models/"
warnings = false
"""


def test_server_keeps_what_its_document_promises(tmp_path: Path, linear_folder: Path) -> None:
    """Hundreds of valid and invalid requests get only documented statuses, types and bodies.

    No request gets a 5xx, and every request without a key is rejected.
    """
    key, line = new_key("schemathesis")
    (tmp_path / "keys").write_text(line)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with serving(models=linear_folder, device="cpu", api_keys_file=tmp_path / "keys") as server:
        schemes = server.get("/openapi.json").json()["components"]["securitySchemes"]
        assert schemes.keys() == {"HTTPBearer", "APIKeyHeader"}
        command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
        command += ["--header", f"Authorization: Bearer {key}", *COMMAND.split()]
        report = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False
        ).stdout
    assert "No issues found" in report, report
