"""How one download ends: what counts as whole, what is kept for the next try, what is begun anew, and what is told."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from regwrap.commands.sync import SyncOptions
from regwrap.core.model import Digest
from regwrap.transfer.endpoints import Endpoints, Writing
from regwrap.transfer.engines import transfer_images
from tests.builders import make_image, make_storage, put, storage_problems
from tests.fakes import Answer, Scripted
from tests.unit.transfer.between import Between, between

APP = make_image("app")
LAYER = APP.blobs[1]
DIGEST = Digest.of(LAYER)


@dataclass(frozen=True)
class End:
    """What curl wrote of the layer from where it was to begin, and what it said then."""

    data: Callable[[int], bytes] = lambda start: LAYER[start:]
    exit_code: int = 0
    status: int = 200
    content_type: str = "application/octet-stream"


@dataclass
class Scene:
    """Each start of curl brings all but the layer as it is, and ends the layer as the next of `endpoints`."""

    two: Between
    layer: bytes = LAYER
    endpoints: list[End] = field(default_factory=list)
    begun_at: list[int] = field(default_factory=list)
    under_way: list[int] = field(default_factory=list)

    def curl(self, stdin: bytes) -> bytes:
        return b"".join(map(self._section, stdin.decode().split("next\n")))

    def _section(self, text: str) -> bytes:
        options = {name: value.strip('"') for name, _is, value in (line.partition(" = ") for line in text.splitlines())}
        start = int(options.get("continue-at", "0"))
        blobs = {digest: blob for (_repository, digest), blob in self.two.source.blobs.items()}
        end = End(lambda at: blobs[options["url"].rpartition("/")[2]][at:])
        if Digest.of(self.layer).hex in options["url"]:
            self.begun_at.append(start)
            self.under_way.append(self.two.told.looks[-1]().done)
            end = self.endpoints.pop(0)
        data = end.data(start)
        if data:
            with Path(options["output"]).open("wb") as pipe, suppress(BrokenPipeError):
                pipe.write(data)
        said = {
            "filename_effective": options["output"], "response_code": end.status, "exitcode": end.exit_code,
            "errormsg": "said so", "url_effective": options["url"], "content_type": end.content_type,
        }  # fmt: skip
        return f"{json.dumps(said)} \n".encode()

    @property
    def part(self) -> Path:
        return self.two.root / f".regwrap/sync/parts/{DIGEST.hex}"

    def run(self, *endpoints: End) -> str:
        """What is said of the image; empty where it came."""
        self.endpoints += endpoints
        report = self.two.run(self.two.job(archive=self.two.directory), "app:1").report
        assert report is not None
        assert self.endpoints == [], "each was asked for"
        if report.failed:
            return f"{report.failed[0].error} {report.failed[0].hint}"
        assert not storage_problems(self.two.root)
        return ""


@pytest.fixture
def scene(scripted: Scripted, tmp_path: Path) -> Iterator[Scene]:
    with between(scripted, tmp_path / "root", {"app:1": APP}) as two:
        found = Scene(two)
        scripted.launcher.answers.append(Answer(when=("curl", "--disable"), reads=found.curl, repeats=True))
        yield found


def first(count: int) -> Callable[[int], bytes]:
    return lambda start: LAYER[start : start + count]


@pytest.mark.slow
def test_all_bytes_are_all_bytes_whatever_was_announced(scene: Scene) -> None:
    """A server that announces a length too long ends curl with 18; what has come is hashed."""
    assert scene.run(End(exit_code=18)) == ""


@pytest.mark.slow
def test_a_connection_that_breaks_costs_an_attempt_and_no_byte(scene: Scene) -> None:
    scene.two.attempts = 2
    assert scene.run(End(first(7), exit_code=56), End()) == ""
    assert scene.begun_at == [0, 7]


@pytest.mark.slow
def test_what_broke_off_stays_for_the_next_run(scene: Scene) -> None:
    assert "did not send blob" in scene.run(End(first(7), exit_code=56))
    assert scene.part.read_bytes() == LAYER[:7]
    assert scene.part.stat().st_mode & 0o777 == 0o600, "it may be a secret, and is nobody's before it is shown"
    assert scene.two.told.said == ["started app:1", "failed app:1"]
    assert scene.run(End()) == ""
    assert scene.begun_at == [0, 7]


@pytest.mark.slow
def test_an_answer_that_ends_too_early_is_damage_and_begun_anew(scene: Scene) -> None:
    """curl was content: what there is can't be trusted to be the beginning."""
    assert f"blob {DIGEST.short} arrived damaged (7 of {len(LAYER)} bytes" in scene.run(End(first(7)))
    assert not scene.part.exists()
    scene.two.attempts = 2
    assert scene.run(End(first(7)), End()) == ""
    assert scene.begun_at == [0, 0, 0]
    assert set(scene.under_way) <= {0, len(APP.blobs[0])}, "what is begun anew is not under way"


def test_a_web_page_is_told_as_one_and_nothing_of_it_is_kept(scene: Scene) -> None:
    page = End(lambda _start: b"<html>please log in</html>", content_type="text/html; charset=utf-8")
    assert "with a web page" in scene.run(page)
    assert not scene.part.exists()


@pytest.mark.parametrize("exit_code", [0, 23])
def test_more_than_a_blob_has_is_refused_and_nothing_of_it_is_kept(scene: Scene, exit_code: int) -> None:
    said = scene.run(End(lambda _start: LAYER + b"and more", exit_code=exit_code))
    assert f"sends more than the {len(LAYER)} bytes" in said
    assert not scene.part.exists()
    assert scene.two.storage.tags("app") == ()


@pytest.mark.parametrize(
    "refusal",
    [
        End(lambda _start: b"", exit_code=33),
        End(lambda _start: b"", exit_code=22, status=416),
        End(lambda _start: LAYER, status=200),  # it sends all of it, whatever was asked
    ],
    ids=["no ranges", "not these", "all of it"],
)
def test_where_a_blob_cannot_be_gone_on_with_it_is_begun_anew_and_that_is_no_failure(
    scene: Scene, refusal: End
) -> None:
    put(scene.part, LAYER[:7])
    assert scene.run(refusal, End()) == ""
    assert scene.begun_at == [7, 0]


def test_a_range_that_was_never_asked_for_is_refused_for_good(scene: Scene) -> None:
    assert "answered 416 to blob" in scene.run(End(lambda _start: b"", exit_code=22, status=416))
    assert scene.begun_at == [0]


def test_what_a_killed_run_had_whole_does_not_travel(scene: Scene) -> None:
    put(scene.part, LAYER)
    assert scene.run() == ""
    assert scene.begun_at == []


@pytest.mark.parametrize(
    ("layer", "end", "said"),
    [
        (b"x", End(lambda _start: b"x", exit_code=18), ""),
        (b"", End(lambda _start: b""), ""),
        (b"", End(lambda _start: b"", exit_code=22, status=404), "answered 404 to blob"),
    ],
    ids=["one byte", "none", "refused"],
)
def test_the_smallest_layers_come_as_large_ones_do(scene: Scene, layer: bytes, end: End, said: str) -> None:
    scene.layer = layer
    scene.two.source.hold("app:1", make_image("small", layers=[layer]))
    found = scene.run(end)
    assert said in found
    assert bool(said) == bool(found)


def test_what_lies_in_a_part_s_place_and_is_no_file_makes_room_for_it(scene: Scene) -> None:
    put(scene.part / "of/somebody", b"else")
    assert scene.run(End()) == ""
    assert scene.begun_at == [0]


@pytest.mark.slow
def test_a_registry_that_wants_less_of_curl_is_asked_for_less(scene: Scene) -> None:
    two, heard = scene.two, list[tuple[str, str]]()
    make_storage(two.root, {})
    two.attempts = 2
    job = two.job(archive=two.directory)
    scene.endpoints += [End(first(0), exit_code=22, status=429), End()]
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack, on_pushed_back=lambda *told: heard.append(told))
        plan = two.run(job, "app:1", options=SyncOptions(dry_run=True)).plan
        source = endpoints.registry(two.place(two.source))
        source.probe.limiter.rate.limit = 8
        report = transfer_images(plan, endpoints.of(job.archive), endpoints=endpoints, writing=Writing())
        assert source.probe.limiter.rate.limit < 4
    assert len(report.copied) == 1
    assert 0 < report.seconds < 60
    assert heard == [(two.source.host, "")]


@pytest.mark.slow
def test_a_curl_that_dies_costs_an_attempt_and_not_the_run(scene: Scene) -> None:
    """Killed for memory, for instance."""
    scene.two.attempts = 2
    dies = Answer(when=("curl", "--disable"), exit_code=137, stderr=b"Killed")
    scene.two.scripted.launcher.answers.insert(0, dies)
    assert scene.run(End()) == ""
    assert any(f"retrying app:1 1 curl ended before {len(APP.blobs)} of" in line for line in scene.two.told.said)
    scene.two.attempts = 1
    scene.two.root.rename(scene.two.root.with_name("old"))
    scene.two.scripted.launcher.answers[0] = replace(dies, repeats=True)
    assert "curl ended before" in scene.run()
