"""A record as text on a terminal or in a log. Pure."""

from __future__ import annotations

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes, printable, table
from regwrap.report.record import HostRecord, ImageRecord, Outcome, RunRecord


def hosts_text(record: RunRecord) -> str:
    """What came of the images and of their bytes, a line a host. Skipped is what was there before the run."""
    rows: list[tuple[str, ...]] = [
        ("HOST", "IMAGES", "COPIED", "REPLACED", "THERE", "FAILED", "SENT", "MOUNTED", "SKIPPED", "RETRIES", "SECONDS")
    ]
    rows += [_host_row(host) for host in record.hosts]
    return "\n".join(table(rows))


def tables_text(record: RunRecord) -> str:
    """Hosts, and the workers of a cluster."""
    return "\n".join([hosts_text(record), *([workers_text(record)] if record.workers else [])])


def workers_text(record: RunRecord) -> str:
    """What each worker of a cluster did, a line each."""
    rows: list[tuple[str, ...]] = [("WORKER", "MACHINE", "BLOBS", "FAILED", "SENT", "SECONDS")]
    for one in record.workers:
        counts = (f"{one.blobs}", f"{one.failures}", human_bytes(one.bytes_sent), f"{one.seconds:.1f}")
        rows.append((one.worker, one.machine, *counts))
    return "\n".join(table(rows))


def _host_row(host: HostRecord) -> tuple[str, ...]:
    counts = (host.images, host.copied, host.moved, host.already_there, host.failures)
    sizes = (host.bytes_sent, host.bytes_mounted, max(0, host.bytes_skipped - host.bytes_mounted))
    return (host.host, *map(str, counts), *map(human_bytes, sizes), f"{host.retries}", f"{host.seconds:.1f}")


def record_text(record: RunRecord) -> str:
    """What was done, the images that were there already left out; hosts; and the total."""
    rows: list[tuple[str, ...]] = [("IMAGE", "OUTCOME", "SENT", "SECONDS", "")]
    rows += [_row(image) for image in record.images if image.outcome != Outcome.THERE or image.tag_now]
    totals, retries = record.totals, int(record.totals["retries"])
    release = f"release {record.release}, " if record.release else ""
    shards = f"shard {', '.join(record.shards)}, " if record.shards else ""
    total = (
        f"{record.command} {record.list}, {release}{shards}{record.started}: {totals['copied']} copied,"
        f" {totals['moved']} replaced,"
        f" {totals['already_there']} already there, {totals['failed']} failed; {human_bytes(totals['bytes_sent'])} sent"
        f" and {human_bytes(totals['bytes_skipped'])} skipped in {record.seconds:.1f} s,"
        f" {counted(retries, 'retry', 'retries')}"
    )
    return "\n".join([*(table(rows) if len(rows) > 1 else ()), tables_text(record), printable(total)])


def _row(image: ImageRecord) -> tuple[str, ...]:
    line = f"line {image.line}: " if image.line else ""
    why = f"{line}{image.error}" if image.outcome == Outcome.FAILED else image.reason
    was = f": it was {image.replaced}, and is {image.digest}" if image.replaced else ""
    now = f"; the source's tag is now {image.tag_now}" if image.tag_now else ""
    return (image.image, image.outcome.shown, human_bytes(image.bytes_sent), f"{image.seconds:.1f}", why + was + now)
