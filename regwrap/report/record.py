"""What came of each image of a run, as a value that is written as JSON, read back, and merged. Pure.

docs/report.md describes the document; a reader of version 1 ignores keys that it does not know.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from regwrap import __version__
from regwrap.core import fields
from regwrap.core.archive_ref import ArchiveRef
from regwrap.core.errors import UsageError
from regwrap.core.fields import a_text, an_integer, list_of, of_kind, or_none
from regwrap.core.manifest import a_digest
from regwrap.core.release_id import ReleaseId
from regwrap.transfer.plan import Drifted, Reason, Skip
from regwrap.transfer.workers import WorkerShare, all_shares

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from regwrap.core.manifest import Descriptor
    from regwrap.core.model import Destination
    from regwrap.lists.imagelist import ImageEntry
    from regwrap.transfer.run import Copied, Failed, SyncReport

VERSION: Final = 1
_TOO_MUCH: Final = 2**63

T = TypeVar("T")
Parse = Callable[[object], object]


class Outcome(StrEnum):
    """What came of an image, in the words of the document."""

    COPIED = "copied"
    REPLACED = "moved"  # copied, and the archive's tag was another image before
    THERE = "already there"
    FAILED = "failed"

    @property
    def shown(self) -> str:
        """The word for people; the document's stays what it was."""
        return "replaced" if self is Outcome.REPLACED else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What came of one image. The defaults are those of an image of which nothing was copied."""

    image: str  # REPOSITORY:TAG at the destination
    source: str
    host: str
    list: str
    line: int
    outcome: Outcome
    reason: str
    digest: str | None = None
    replaced: str | None = None  # what the destination's tag was before, where that is another image
    tag_now: str | None = None  # where the source's tag is not `digest` any more: a digest, or "gone"
    bytes_sent: int = 0
    bytes_skipped: int | None = None  # that did not travel; None: not known
    bytes_mounted: int = 0  # of those that were skipped: copied by another image of this run
    attempts: int = 1
    seconds: float = 0
    start: float = 0  # seconds since the copying began
    end: float = 0
    worker: int | None = None  # two images of one worker never overlap; None: no copy was begun
    error: str = ""
    hint: str = ""
    blobs: Mapping[str, int] = field(default_factory=dict)  # configs and layers by digest, where they are known


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
    """`shards` are those that it has, empty for a whole list; `started` is in ISO 8601. `release` is None where the
    images are no release's, `sha256` of its bundle's file, empty where that is not known; `workers` are a cluster's."""

    command: str
    list: str
    shards: tuple[str, ...]
    started: str
    seconds: float
    images: tuple[ImageRecord, ...]
    release: ReleaseId | None = None
    sha256: str = ""
    workers: tuple[WorkerShare, ...] = ()
    regwrap: str = __version__
    version: int = VERSION

    def having(self, outcome: Outcome) -> tuple[ImageRecord, ...]:
        return tuple(image for image in self.images if image.outcome == outcome)

    @property
    def hosts(self) -> tuple[HostRecord, ...]:
        names = sorted({image.host for image in self.images})
        return tuple(_host(name, [image for image in self.images if image.host == name]) for name in names)

    @property
    def totals(self) -> dict[str, int | float]:
        return {
            "images": len(self.images),
            "copied": len(self.having(Outcome.COPIED)),
            "moved": len(self.having(Outcome.REPLACED)),
            "already_there": len(self.having(Outcome.THERE)),
            "failed": len(self.having(Outcome.FAILED)),
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
    drifted = {item.entry.dest: item for item in report.moved}
    records = [
        *(_copied(item, _listed(facts, item.copy.entry, drifted)) for item in report.copied),
        *(_skipped(item, _listed(facts, item.entry, drifted)) for item in report.skipped),
        *(_failed(item, _listed(facts, item.entry, drifted)) for item in report.failed),
    ]
    return RunRecord(
        command=facts.command,
        list=facts.list,
        shards=(facts.shard,) if facts.shard else (),
        started=facts.started,
        seconds=round(report.seconds, 3),
        images=tuple(sorted(records, key=lambda record: record.image)),
        release=report.release,
        workers=report.workers,
    )


def _listed(facts: RunFacts, entry: ImageEntry, drifted: dict[Destination, Drifted]) -> partial[ImageRecord]:
    """A record of which only the outcome is open."""
    tag = drifted.get(entry.dest)
    return partial(
        ImageRecord,
        image=str(entry.dest),
        source=str(entry.source),
        host=entry.source.registry or ("-" if isinstance(entry.source, ArchiveRef) else facts.source or "-"),
        list=facts.list,
        line=entry.line,
        tag_now=None if tag is None else str(tag.now or "gone"),
    )


def _copied(item: Copied, record: partial[ImageRecord]) -> ImageRecord:
    return record(
        outcome=Outcome.REPLACED if item.copy.reason is Reason.REPLACED else Outcome.COPIED,
        reason=str(item.copy.reason),
        digest=str(item.copy.digest),
        replaced=None if item.copy.replaced is None else str(item.copy.replaced),
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


def _skipped(item: Skip, record: partial[ImageRecord]) -> ImageRecord:
    return record(
        outcome=Outcome.THERE,
        reason=str(item.reason),
        digest=str(item.digest),
        bytes_skipped=item.size,
        blobs=_sizes_of(item.blobs),
    )


def _sizes_of(blobs: Iterable[Descriptor]) -> dict[str, int]:
    return {str(blob.digest): blob.size for blob in blobs}


def _failed(item: Failed, record: partial[ImageRecord]) -> ImageRecord:
    return record(
        outcome=Outcome.FAILED,
        reason=item.error,
        bytes_sent=item.sent,
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
        copied=outcomes[Outcome.COPIED],
        moved=outcomes[Outcome.REPLACED],
        already_there=outcomes[Outcome.THERE],
        failures=outcomes[Outcome.FAILED],
        bytes_sent=sum(image.bytes_sent for image in images),
        bytes_mounted=sum(image.bytes_mounted for image in images),
        bytes_skipped=sum(image.bytes_skipped or 0 for image in images),
        retries=sum(image.attempts - 1 for image in images),
        seconds=round(sum(image.seconds for image in images), 3),
    )


def merge(records: Sequence[RunRecord]) -> RunRecord:
    """One record of several: shards, or one list tried again, the later one last; and of the release that was made of
    them. Runs are taken to be parallel, each with workers of its own."""
    images: dict[str, ImageRecord] = {}
    workers = 0
    for record in records:
        for image in record.images:
            own = image if image.worker is None else replace(image, worker=workers + image.worker)
            images[image.image] = _again(images[image.image], own) if image.image in images else own
        workers += max((image.worker + 1 for image in record.images if image.worker is not None), default=0)
    first, releases = records[0], list(dict.fromkeys(record.release for record in records if record.release))
    release = releases[0] if len(releases) == 1 else None
    return replace(
        first,
        list=", ".join(dict.fromkeys(record.list for record in records)),
        command=", ".join(dict.fromkeys(record.command for record in records)),
        shards=tuple(sorted({shard for record in records for shard in record.shards})),
        started=min(record.started for record in records),
        seconds=max(record.seconds for record in records),
        images=tuple(images[name] for name in sorted(images)),
        release=release,
        sha256=next((record.sha256 for record in reversed(records) if record.sha256), "") if release else "",
        workers=all_shares(share for record in records for share in record.workers),
        regwrap=__version__,
    )


def _again(first: ImageRecord, second: ImageRecord) -> ImageRecord:
    """The second outcome counts, but what the first has copied was copied; what both have cost adds up."""
    is_first = second.outcome is Outcome.THERE and first.outcome in {Outcome.COPIED, Outcome.REPLACED}
    return replace(
        first if is_first else second,
        bytes_sent=first.bytes_sent + second.bytes_sent,
        bytes_mounted=first.bytes_mounted + second.bytes_mounted,
        attempts=first.attempts + (second.attempts if second.outcome is not Outcome.THERE else 0),
        seconds=round(first.seconds + second.seconds, 3),
    )


def to_text(record: RunRecord) -> str:
    """The JSON document."""
    document = {
        **{field.name: getattr(record, field.name) for field in dataclasses.fields(record)},
        "totals": record.totals,
        "hosts": [dataclasses.asdict(host) for host in record.hosts],
        "images": [dataclasses.asdict(image) for image in record.images],
        "workers": [dataclasses.asdict(share) for share in record.workers],
        "release": _release_keys(record),
    }
    del document["sha256"]  # it is the release's
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def _release_keys(record: RunRecord) -> dict[str, str | None] | None:
    release = record.release
    if release is None:
        return None
    shown_id = None if release.id is None else f"{release.id}"
    return {"name": release.name or None, "id": shown_id, "sha256": record.sha256 or None}


def parse_record(data: bytes, name: str) -> RunRecord:
    """Raises UsageError where `data` is no record, or one of another version."""
    try:
        document = fields.json_value(data)
    except ValueError as error:
        raise UsageError(f"{name} is not a report: {error}") from error
    version = document.get("version") if isinstance(document, dict) else None
    if not isinstance(document, dict) or version != VERSION:
        raise UsageError(
            f"{name} is not a report of version {VERSION}", hint="create one with regwrap sync --report FILE"
        )
    try:
        record = _made(RunRecord, _RUN_FIELDS, document)
        release = or_none(fields.an_object)(document.get("release")) or {}
        return replace(record, sha256=fields.field(release, "sha256", or_none(a_text)) or "")
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def _made(kind: Callable[..., T], table: Mapping[str, Parse], values: Mapping[str, object]) -> T:
    """What the fields of `table` make. Raises ValueError for the first that is wrong."""
    return kind(**{name: fields.field(values, name, parse) for name, parse in table.items()})


def _image(value: object) -> ImageRecord:
    return _made(ImageRecord, _IMAGE_FIELDS, fields.an_object(value))


def _share(value: object) -> WorkerShare:
    return _made(WorkerShare, _SHARE_FIELDS, fields.an_object(value))


def _release(value: object) -> ReleaseId:
    keys = fields.an_object(value)
    return ReleaseId(
        fields.field(keys, "name", or_none(a_text)) or "",
        fields.field(keys, "id", or_none(a_digest)),
    )


def _outcome(value: object) -> Outcome:
    return Outcome(of_kind(f"one of {', '.join(Outcome)}", str, fits=lambda text: text in set(Outcome))(value))


def _sizes(value: object) -> Mapping[str, int]:
    return {key: _COUNT(size) for key, size in (or_none(fields.an_object)(value) or {}).items()}


_COUNT: Final = an_integer(0, _TOO_MUCH - 1)
_NUMBER: Final[Callable[[object], float]] = of_kind(
    "a number from 0", int, float, fits=lambda number: 0 <= number < _TOO_MUCH
)
_IMAGE_FIELDS: Final[Mapping[str, Parse]] = {
    "outcome": _outcome,
    **dict.fromkeys(("image", "source", "host", "list", "reason", "error", "hint"), a_text),
    **dict.fromkeys(("line", "bytes_sent", "attempts"), _COUNT),
    **dict.fromkeys(("seconds", "start", "end"), _NUMBER),
    **dict.fromkeys(("digest", "tag_now"), or_none(a_text)),
    **dict.fromkeys(("bytes_skipped", "worker"), or_none(_COUNT)),
    "bytes_mounted": lambda value: or_none(_COUNT)(value) or 0,  # this and what follows came later
    "replaced": or_none(a_text),
    "blobs": _sizes,
}
_SHARE_FIELDS: Final[Mapping[str, Parse]] = {
    **dict.fromkeys(("worker", "machine"), a_text),
    **dict.fromkeys(("blobs", "bytes_sent", "failures"), _COUNT),
    "seconds": _NUMBER,
}
_RUN_FIELDS: Final[Mapping[str, Parse]] = {
    **dict.fromkeys(("command", "list", "started", "regwrap"), a_text),
    "shards": list_of(a_text),
    "seconds": _NUMBER,
    "images": list_of(_image),
    "release": or_none(_release),
    "workers": lambda value: or_none(list_of(_share))(value) or (),
}
