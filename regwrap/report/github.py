"""A record in the words of GitHub Actions: annotations at the lines of the list, and a summary in Markdown. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.markdown import cell, table_lines
from regwrap.report.record import ImageRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN: Final = 50


def workflow_commands(record: RunRecord) -> str:
    """A workflow command for each image that failed, and for each tag that now means another image."""
    replaced = (_replaced(image) for image in record.images if image.replaced)
    return "\n".join([*map(_annotation, record.having(Outcome.FAILED)), *replaced])


def _replaced(image: ImageRecord) -> str:
    line = f",line={image.line}" if image.line else ""
    message = f"{image.image} is another image now: {image.replaced} -> {image.digest}"
    return f"::warning file={_property(image.list)}{line}::{_data(message)}"


def _annotation(image: ImageRecord) -> str:
    line = f",line={image.line}" if image.line else ""
    message = f"{image.image}: {image.error}" + (f"\n{image.hint}" if image.hint else "")
    return f"::error file={_property(image.list)}{line}::{_data(message)}"


def _data(text: str) -> str:
    # actions/toolkit, packages/core/src/command.ts
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def summary(record: RunRecord) -> str:
    """Totals, what failed, tags that were replaced, tags that drifted, hosts."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: RunRecord) -> Iterator[str]:
    totals = record.totals
    shards = f" (shard {', '.join(record.shards)})" if record.shards else ""
    yield f"### regwrap {record.command}: {cell(record.list)}{shards}"
    if record.release:
        yield ""
        yield f"Release {cell(f'{record.release}')}"
    yield ""
    yield (
        f"{counted(int(totals['images']), 'image')}: {totals['copied']} copied, {totals['moved']} replaced,"
        f" {totals['already_there']} already there, **{totals['failed']} failed**;"
        f" {human_bytes(totals['bytes_sent'])} sent in {record.seconds:.1f} s,"
        f" {counted(int(totals['retries']), 'retry', 'retries')}"
    )
    failed, drifted = record.having(Outcome.FAILED), [image for image in record.images if image.tag_now]
    if failed:
        yield from table_lines(
            ("Failed", "Line", "Why"), [(i.image, f"{i.line or ''}", i.error) for i in failed], _SHOWN
        )
    if replaced := [image for image in record.images if image.replaced]:
        rows = [(i.image, i.replaced or "", i.digest or "") for i in replaced]
        yield from table_lines(("Tag that is another image now", "Was", "Is"), rows, _SHOWN)
    if drifted:
        rows = [(i.image, i.digest or "", i.tag_now or "") for i in drifted]
        yield from table_lines(("Tag drifted at the source", "Copied", "Now"), rows, _SHOWN)
    hosts = [(h.host, f"{h.images}", human_bytes(h.bytes_sent), f"{h.retries}", f"{h.failures}") for h in record.hosts]
    yield from table_lines(("Host", "Images", "Sent", "Retries", "Failed"), hosts, _SHOWN)
