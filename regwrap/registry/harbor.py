"""Harbor's own API, as far as a push needs it: a repository's first part is a project, which must exist before.

Requests as in goharbor/harbor, api/v2.0/swagger.yaml: getPing, headProject, createProject.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from regwrap.core.errors import ToolError
from regwrap.registry.answers import reason_of
from regwrap.registry.exchange import Body

if TYPE_CHECKING:
    from regwrap.registry.probe import Probe

_API: Final = "/api/v2.0"


@dataclass(frozen=True, slots=True)
class Harbor:
    """Asked through the probe's connections, with the authfile's credentials."""

    probe: Probe

    def is_there(self) -> bool:
        """Whether the registry is a Harbor; others have nothing at that path."""
        answer = self.probe.call("GET", f"{_API}/ping")
        return answer.status == 200 and answer.body.strip(b'"\n ') == b"Pong"

    def has_project(self, name: str) -> bool | None:
        """None where Harbor does not tell this account."""
        answer = self.probe.call("HEAD", f"{_API}/projects?{urlencode({'project_name': name})}")
        return {200: True, 404: False}.get(answer.status)

    def create_project(self, name: str) -> None:
        """A private one; that it is there meanwhile is fine. Raises ToolError."""
        wanted = {"project_name": name, "metadata": {"public": "false"}}
        body = Body("application/json", json.dumps(wanted).encode())
        answer = self.probe.call("POST", f"{_API}/projects", body)
        if answer.status in {201, 409}:
            return
        host = self.probe.registry.host
        raise ToolError(
            f"Harbor {host} refused to create the project {name} ({answer.status})",
            detail=reason_of(answer.body),
            hint="log in as a user with the right to create projects (skopeo login), or ask an administrator",
        )
