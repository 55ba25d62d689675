"""What a rule of the configuration brings into a lock is what its registry has, under no other name."""

import json
from pathlib import Path

import pytest

from regwrap.commands.lock import write_lock
from regwrap.core.model import Digest
from regwrap.lists.imagelist import HOST_IS_DROPPED, parse_images
from regwrap.lists.rules import make_rule
from regwrap.lists.wanted import Wanted
from tests.answering import Answer, Asked, answering
from tests.builders import make_image
from tests.fakes import Scripted
from tests.unit.transfer.between import between

APP = make_image("app")
NAMES = ["app", "app other/name", "\ud800", "app\nevil"]
TAGS = ["1", "1 other:2", "1  # x", "\ud800", f"1@{Digest.of(b'x')}"]


def hostile(asked: Asked) -> Answer:
    target = asked.line.split()[1].partition("?")[0]
    documents = {"/v2/_catalog": {"repositories": NAMES}, "/v2/app/tags/list": {"tags": TAGS}}
    if target in documents:
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(documents[target]).encode())
    if target in {"/v2/app/manifests/1", f"/v2/app/manifests/{APP.top}"}:
        kind = {"Content-Type": json.loads(APP.raw)["mediaType"], "Docker-Content-Digest": f"{APP.top}"}
        return Answer(200, kind, APP.raw)
    blobs = {f"/v2/app/blobs/{Digest.of(blob)}": blob for blob in APP.blobs}
    return Answer(200, {}, blobs[target]) if target in blobs else Answer(404)


@pytest.mark.slow
@pytest.mark.parametrize("match", ["app:**", "**:**"])
def test_a_name_that_no_list_can_have_brings_nothing(scripted: Scripted, tmp_path: Path, match: str) -> None:
    rule = make_rule(match, semver=None, newest=None, platforms=())
    with between(scripted, tmp_path / "archive") as two, answering(hostile) as server:
        job = two.job(source=two.job().location_of(server.host))
        wanted = Wanted(images=parse_images(b"", "images.list"), rules=(rule,), rewrite=HOST_IS_DROPPED)
        report = write_lock(job, wanted, tmp_path / "lock")
    assert job.source is not None
    assert [f"{image.dest}" for image in report.images] == ["app:1"]
    said = [f"note: {job.source.name}/app: {len(TAGS) - 1} names left out that no list can have, such as '1  # x'"]
    said += (
        [f"note: {job.source.name}: {len(NAMES) - 1} names left out that no list can have, such as 'app\\nevil'"]
        if match[0] == "*"
        else []
    )
    assert sorted(line for line in two.told.lines if "no list" in line) == sorted(said)
