"""What came of each image of a run, as a value that is written as JSON, read back, and merged. Pure.

docs/report.md describes the document; a reader of version 1 ignores keys that it does not know.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from regwrap import __version__
from regwrap.core.errors import UsageError
from regwrap.transfer.plan import Moved, Reason, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from regwrap.core.model import Descriptor, Destination
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.transfer.run import Copied, Failed, SyncReport

VERSION: Final = 1
COPIED: Final = "copied"
MOVED: Final = "moved"
THERE: Final = "already there"
FAILED: Final = "failed"
_TOO_MUCH: Final = 2**63
OUTCOMES: Final = (COPIED, MOVED, THERE, FAILED)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """`moved`: copied, and the archive's tag was another image before. `tag_now` is what the source's tag is now where
    that is not `digest`: a digest, or `gone`. `bytes_skipped` did not travel, None where that can't be known; of these
    another image of the run had brought `bytes_mounted`. `start` and `end` are seconds since the copying began, two
    images of one `worker` never overlap, and None is one that was not begun. `blobs` are configs and layers with their
    sizes, where they are known."""

    image: str
    source: str
    host: str
    list: str
    line: int
    outcome: str
    reason: str
    digest: str | None
    tag_now: str | None
    bytes_sent: int
    bytes_skipped: int | None
    attempts: int
    seconds: float
    start: float
    end: float
    error: str
    hint: str
    worker: int | None = None
    bytes_mounted: int = 0
    blobs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """The images of one source. `seconds` are those of all workers; the other figures as those of the run."""

    host: str
    images: int
    copied: int
    moved: int
    already_there: int
    failures: int
    bytes_sent: int
    bytes_mounted: int
    bytes_skipped: int
    retries: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """`shards` are those that it has, empty for a whole list; `started` is in ISO 8601."""

    command: str
    list: str
    shards: tuple[str, ...]
    started: str
    seconds: float
    images: tuple[ImageRecord, ...]
    regwrap: str = __version__
    version: int = VERSION

    def having(self, outcome: str) -> tuple[ImageRecord, ...]:
        return tuple(image for image in self.images if image.outcome == outcome)

    @property
    def hosts(self) -> tuple[HostRecord, ...]:
        names = sorted({image.host for image in self.images})
        return tuple(_host(name, [image for image in self.images if image.host == name]) for name in names)

    @property
    def totals(self) -> dict[str, int | float]:
        return {
            "images": len(self.images),
            "copied": len(self.having(COPIED)),
            "moved": len(self.having(MOVED)),
            "already_there": len(self.having(THERE)),
            "failed": len(self.having(FAILED)),
            "tags_moved_at_source": sum(image.tag_now is not None for image in self.images),
            "bytes_sent": sum(image.bytes_sent for image in self.images),
            "bytes_skipped": sum(image.bytes_skipped or 0 for image in self.images),
            "bytes_mounted": sum(image.bytes_mounted for image in self.images),
            "retries": sum(image.attempts - 1 for image in self.images),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run's results do not say of themselves. `source` is where lines without a registry come from."""

    command: str
    list: str
    shard: str | None
    source: str | None
    started: str


def record_of(report: SyncReport, facts: RunFacts) -> RunRecord:
    """The record of a run, its images sorted by name."""
    moved = {item.entry.dest: item for item in report.moved}
    records = [
        *(_copied(item, _entry(facts, item.copy.entry, moved)) for item in report.copied),
        *(_skipped(item, _entry(facts, item.entry, moved)) for item in report.skipped),
        *(_failed(item, _entry(facts, item.entry, moved)) for item in report.failed),
    ]
    return RunRecord(
        command=facts.command,
        list=facts.list,
        shards=(facts.shard,) if facts.shard else (),
        started=facts.started,
        seconds=round(report.seconds, 3),
        images=tuple(sorted(records, key=lambda record: record.image)),
    )


def _entry(facts: RunFacts, entry: ImageEntry, moved: dict[Destination, Moved]) -> ImageRecord:
    """What is known of an image whatever came of it."""
    tag = moved.get(entry.dest)
    return ImageRecord(
        image=str(entry.dest),
        source=str(entry.source),
        host=entry.source.registry or facts.source or "-",
        list=facts.list,
        line=entry.line,
        outcome=FAILED,
        reason="",
        digest=None,
        tag_now=None if tag is None else str(tag.now or "gone"),
        bytes_sent=0,
        bytes_skipped=None,
        attempts=1,
        seconds=0,
        start=0,
        end=0,
        error="",
        hint="",
    )


def _copied(item: Copied, record: ImageRecord) -> ImageRecord:
    return replace(
        record,
        outcome=MOVED if item.copy.reason is Reason.MOVED else COPIED,
        reason=str(item.copy.reason),
        digest=str(item.copy.digest),
        bytes_sent=item.sent,
        bytes_skipped=max(0, item.copy.closure.size - item.sent),
        bytes_mounted=max(0, item.copy.bytes_missing - item.sent),
        attempts=item.attempts,
        seconds=round(item.seconds, 3),
        start=round(item.start, 3),
        end=round(item.start + item.seconds, 3),
        worker=item.worker,
        blobs=_sizes_of(item.copy.closure.blobs),
    )


def _skipped(item: Skip, record: ImageRecord) -> ImageRecord:
    return replace(
        record,
        outcome=THERE,
        reason=str(item.reason),
        digest=str(item.digest),
        bytes_skipped=item.size,
        blobs=_sizes_of(item.blobs),
    )


def _sizes_of(blobs: Iterable[Descriptor]) -> dict[str, int]:
    return {str(blob.digest): blob.size for blob in blobs}


def _failed(item: Failed, record: ImageRecord) -> ImageRecord:
    return replace(
        record,
        reason=item.error,
        attempts=item.attempts,
        seconds=round(item.seconds, 3),
        start=round(item.start, 3),
        end=round(item.start + item.seconds, 3),
        worker=item.worker,
        error=item.error,
        hint=item.hint,
    )


def _host(name: str, images: Sequence[ImageRecord]) -> HostRecord:
    outcomes = Counter(image.outcome for image in images)
    return HostRecord(
        host=name,
        images=len(images),
        copied=outcomes[COPIED],
        moved=outcomes[MOVED],
        already_there=outcomes[THERE],
        failures=outcomes[FAILED],
        bytes_sent=sum(image.bytes_sent for image in images),
        bytes_mounted=sum(image.bytes_mounted for image in images),
        bytes_skipped=sum(image.bytes_skipped or 0 for image in images),
        retries=sum(image.attempts - 1 for image in images),
        seconds=round(sum(image.seconds for image in images), 3),
    )


def merge(records: Sequence[RunRecord]) -> RunRecord:
    """One record of several: shards, or one list tried again, the later one last. Runs are taken to be parallel, each
    with workers of its own."""
    images: dict[str, ImageRecord] = {}
    workers = 0
    for record in records:
        for image in record.images:
            own = image if image.worker is None else replace(image, worker=workers + image.worker)
            images[image.image] = _again(images[image.image], own) if image.image in images else own
        workers += max((image.worker + 1 for image in record.images if image.worker is not None), default=0)
    first = records[0]
    return replace(
        first,
        list=", ".join(dict.fromkeys(record.list for record in records)),
        command=", ".join(dict.fromkeys(record.command for record in records)),
        shards=tuple(sorted({shard for record in records for shard in record.shards})),
        started=min(record.started for record in records),
        seconds=max(record.seconds for record in records),
        images=tuple(images[name] for name in sorted(images)),
        regwrap=__version__,
    )


def _again(first: ImageRecord, second: ImageRecord) -> ImageRecord:
    """The second outcome counts, but what the first has brought was brought; what both have cost adds up."""
    is_first = second.outcome == THERE and first.outcome in {COPIED, MOVED}
    return replace(
        first if is_first else second,
        bytes_sent=first.bytes_sent + second.bytes_sent,
        bytes_mounted=first.bytes_mounted + second.bytes_mounted,
        attempts=first.attempts + (second.attempts if second.outcome != THERE else 0),
        seconds=round(first.seconds + second.seconds, 3),
    )


def to_text(record: RunRecord) -> str:
    """The JSON document."""
    document = {
        **{field.name: getattr(record, field.name) for field in dataclasses.fields(record)},
        "totals": record.totals,
        "hosts": [dataclasses.asdict(host) for host in record.hosts],
        "images": [dataclasses.asdict(image) for image in record.images],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def parse_record(data: bytes, name: str) -> RunRecord:
    """Raises UsageError where `data` is no record, or one of another version."""
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is no report: {error}") from error
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or version != VERSION:
        raise UsageError(f"{name} is no report of version {VERSION}", hint="regwrap sync --report FILE writes one")
    reader = _Reader(name, document)
    return RunRecord(
        command=reader.get("command", _text),
        list=reader.get("list", _text),
        shards=tuple(map(_text, reader.get("shards", _items))),
        started=reader.get("started", _text),
        seconds=reader.get("seconds", _number),
        images=tuple(_image(f"{name}: images", item) for item in reader.get("images", _items)),
        regwrap=reader.get("regwrap", _text),
    )


def _image(name: str, item: object) -> ImageRecord:
    if not isinstance(item, dict):
        raise UsageError(f"{name}: expected an object")
    reader = _Reader(name, item)
    outcome = reader.get("outcome", _text)
    if outcome not in OUTCOMES:
        raise UsageError(f"{name}: {outcome[:60]!r} is no outcome; known are {', '.join(OUTCOMES)}")
    return ImageRecord(
        image=reader.get("image", _text),
        source=reader.get("source", _text),
        host=reader.get("host", _text),
        list=reader.get("list", _text),
        line=reader.get("line", _whole),
        outcome=outcome,
        reason=reader.get("reason", _text),
        bytes_sent=reader.get("bytes_sent", _whole),
        attempts=reader.get("attempts", _whole),
        seconds=reader.get("seconds", _number),
        start=reader.get("start", _number),
        end=reader.get("end", _number),
        error=reader.get("error", _text),
        hint=reader.get("hint", _text),
        digest=reader.get("digest", _or_none(_text)),
        tag_now=reader.get("tag_now", _or_none(_text)),
        bytes_skipped=reader.get("bytes_skipped", _or_none(_whole)),
        worker=reader.get("worker", _or_none(_whole)),  # this and what follows came later
        bytes_mounted=reader.get("bytes_mounted", _or_none(_whole)) or 0,
        blobs=reader.get("blobs", _sizes),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    name: str
    values: dict[str, object]

    def get(self, key: str, parse: Callable[[object], T]) -> T:
        try:
            return parse(self.values.get(key))
        except TypeError as error:
            raise UsageError(f"{self.name}: {key}: expected {error}") from error


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("a text")


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_MUCH:
        return value
    raise TypeError("a whole number")


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _TOO_MUCH:
        return value
    raise TypeError("a number")


def _sizes(value: object) -> Mapping[str, int]:
    if isinstance(value, dict):
        return {_text(key): _whole(item) for key, item in value.items()}
    if value is None:
        return {}
    raise TypeError("an object")


def _items(value: object) -> Iterable[object]:
    if isinstance(value, list):
        return value
    raise TypeError("a list")


def _or_none(parse: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else parse(value)
