"""A record, or a receipt, as JUnit XML, as CI servers show it: one test case an image. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from regwrap.bundle.receipt import VALID
from regwrap.report.record import ImageRecord, Outcome, RunRecord

if TYPE_CHECKING:
    from regwrap.bundle.receipt import Receipt

# What XML 1.0 cannot hold, escaped or not: a program's words may have it.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(record: RunRecord) -> str:
    """Images of one host are one suite."""
    totals = record.totals
    release = f": {record.release}" if record.release else ""
    root = Element(
        "testsuites",
        name=_clean(f"regwrap {record.command}{release}"),
        tests=f"{totals['images']}",
        failures=f"{totals['failed']}",
        time=f"{record.seconds:.3f}",
    )
    for host in record.hosts:
        images = [image for image in record.images if image.host == host.host]
        suite = SubElement(
            root,
            "testsuite",
            name=_clean(host.host),
            tests=f"{host.images}",
            failures=f"{host.failures}",
            errors="0",
            skipped="0",
            time=f"{sum(image.seconds for image in images):.3f}",
            timestamp=_clean(record.started),
        )
        for image in images:
            _add_case(suite, image)
    return _text(root)


def receipt_junit(receipt: Receipt) -> str:
    """One suite for all of it."""
    facts = receipt.facts
    tests, failures = f"{len(receipt.images)}", f"{sum(image.verdict != VALID for image in receipt.images)}"
    release = f": {facts.release or '(without a name)'}, id {facts.id}" if facts.id else ""
    root = Element("testsuites", name=_clean(f"regwrap verify{release}"), tests=tests, failures=failures)
    name, time = _clean(facts.target), _clean(facts.time)
    suite = SubElement(
        root, "testsuite", name=name, tests=tests, failures=failures, errors="0", skipped="0", timestamp=time
    )
    for image in receipt.images:
        case = SubElement(suite, "testcase", name=_clean(image.image), classname=name)
        if image.verdict != VALID:
            failure = SubElement(case, "failure", message=_clean(image.verdict), type="verify")
            failure.text = _clean("\n".join(image.problems))
        else:
            SubElement(case, "system-out").text = f"{image.digest}"
    return _text(root)


def _text(root: Element) -> str:
    indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _add_case(suite: Element, image: ImageRecord) -> None:
    case = SubElement(
        suite,
        "testcase",
        name=_clean(image.image),
        classname=_clean(image.host),
        time=f"{image.seconds:.3f}",
        file=_clean(image.list),
    )
    if image.line:
        case.set("line", f"{image.line}")
    if image.outcome == Outcome.FAILED:
        failure = SubElement(case, "failure", message=_clean(image.error), type="sync")
        failure.text = _clean("\n".join(part for part in (image.error, image.hint) if part))
        return
    was = f"; the tag was {image.replaced}" if image.replaced else ""
    now = f"; the source's tag is now {image.tag_now}" if image.tag_now else ""
    SubElement(case, "system-out").text = _clean(f"{image.outcome.shown}: {image.reason}; {image.digest}{was}{now}")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
