"""What came of downloads that another program made, as the host's limiter hears it."""

from pathlib import Path
from typing import Final

import pytest

from regwrap.core.errors import HostDownError, ToolError
from regwrap.core.location import Registry
from regwrap.registry.probe import Probe
from regwrap.tools.curl import Outcome
from tests.answering import Answer, answering, script

_REFUSED: Final = 7  # curl(1), EXIT CODES


@pytest.mark.parametrize(("other", "is_down"), [("", True), ("127.0.0.1:1", False)])
def test_a_registry_is_not_down_since_its_answer_led_to_where_nobody_listens(other: str, *, is_down: bool) -> None:
    with answering(script(Answer(200, {"Content-Type": "application/json"}, b"{}"))) as server:
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        downloads = Probe(registry=registry, timeout=5, connections=1).downloads
        downloads.told(Outcome(key="x", exit_code=_REFUSED, url=f"http://{other or server.host}/x"), 0)
        error = downloads.client.limiter.gave_up(ToolError("refused", transient=True, host=server.host))
    assert isinstance(error, HostDownError) is is_down


def test_a_registry_without_tls_may_lead_to_a_bucket_whose_ca_is_named(tmp_path: Path) -> None:
    authority = Path(__file__).parents[2] / "samples/tls/ca.crt"
    with answering(script(Answer(200, {"Content-Type": "application/json"}, b"{}"))) as server:
        registry = Registry(host=server.host, tls_verify=False, plain_http=True)
        variables = (("SSL_CERT_FILE", f"{authority}"),)
        downloads = Probe(registry=registry, timeout=5, connections=1, environment=variables).downloads
        options = dict(downloads.route(tmp_path).options)
    assert Path(options["cacert"]).read_bytes() == authority.read_bytes()
    assert "insecure" not in options
