"""What came of a campaign: lines on stderr while it runs, results/torture.json, a Markdown table."""

import dataclasses
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.torture.campaign import Order
from tests.torture.judge import Verdict


def report(order: Order, verdicts: Iterable[Verdict], path: Path) -> int:
    """Tell each bad case as it comes, write the file, say the sums; the exit code is 1 if anything was bad."""
    started, all_of_them = time.monotonic(), []
    _say(f"seed {order.seed}, {order.seconds:g} s, {order.workers} workers")
    for verdict in verdicts:
        all_of_them.append(verdict)
        if not verdict.is_good or order.cases:
            _say(_told(verdict, whole=bool(order.cases)))
        elif len(all_of_them) % 100 == 0:
            _say(f"{len(all_of_them)} cases after {time.monotonic() - started:.0f} s")
    path = path.with_name("torture-case.json") if order.cases else path
    document = _document(order, all_of_them, time.monotonic() - started)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    total = document["total"]
    sums = ", ".join(
        f"{total[key]} {key.replace('_', ' ')}" for key in ("faults", "lost", "lies", "left", "theirs", "not_reached")
    )
    _say(f"seed {order.seed}: {sums}; {path}")
    return 1 if total["lost"] or total["lies"] or total["left"] or not total["faults"] else 0


def _told(verdict: Verdict, *, whole: bool) -> str:
    lines = [f"{'good' if verdict.is_good else 'BAD '} {verdict.case}  (exit {verdict.code}, {verdict.seconds} s)"]
    for kind, texts in (("lost", verdict.lost), ("lie", verdict.lies), ("left", verdict.left)):
        lines += [f"    {kind}: {text}" for text in texts]
    if whole or not verdict.is_good:
        lines += [f"    | {line}" for line in verdict.said.strip().splitlines()[-14:]]
    return "\n".join(lines)


def _document(order: Order, verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    rows: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        group, work, *_rest = verdict.case.split("/")
        rows[f"{group} | {work}"].append(verdict)
    return {
        "seed": order.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}",
        "seconds": round(seconds),
        "total": _sums(verdicts),
        "rows": {name: _sums(found) for name, found in sorted(rows.items())},
        "bad": [dataclasses.asdict(verdict) for verdict in verdicts if not verdict.is_good],
        "not_reached": [verdict.case for verdict in verdicts if not verdict.hit],
    }


def _sums(verdicts: list[Verdict]) -> dict[str, int]:
    hit = [verdict for verdict in verdicts if verdict.hit]
    return {
        "faults": len(hit),
        "lost": sum(bool(verdict.lost) for verdict in verdicts),
        "lies": sum(bool(verdict.lies) for verdict in verdicts),
        "left": sum(bool(verdict.left) for verdict in verdicts),
        "theirs": sum(bool(verdict.theirs) for verdict in verdicts),
        "not_reached": len(verdicts) - len(hit),
    }


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def markdown(document: dict[str, Any]) -> str:
    """The table of docs/reliability.md."""
    head = (
        f"`make torture SECONDS={document['seconds']} SEED={document['seed']}`, {document['date']},"
        f" {document['machine']}.\n\n"
        "| fault | work | faults | lost | lies | left behind | by docker-registry to itself |\n"
        "|---|---|---:|---:|---:|---:|---:|\n"
    )
    rows = [*document["rows"].items(), ("**all** | ", document["total"])]
    return head + "".join(
        f"| {name} | {sums['faults']} | {sums['lost']} | {sums['lies']} | {sums['left']} | {sums['theirs']} |\n"
        for name, sums in rows
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
