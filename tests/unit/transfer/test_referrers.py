"""Signatures and SBOMs travel with their images: found by their tags or by the registry's API, and those about them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.commands.sync import SyncOptions
from regwrap.core.listener import SILENT
from regwrap.core.manifest import OCI_INDEX, OCI_MANIFEST, parse_manifest
from regwrap.core.model import Digest
from regwrap.lists.imagelist import ImageList, parse_images
from regwrap.storage.store import Storage
from regwrap.transfer.referrers import with_referrers_there
from tests.builders import Image, index_of, make_image, make_multi_image, make_storage
from tests.fakes import Scripted
from tests.unit.cli.programs import curl
from tests.unit.transfer.between import Between, between

APP, MULTI, SIGNATURE, SBOM, ABOUT = (
    make_image("app"), make_multi_image("multi"), make_image("signature"), make_image("sbom"), make_image("about"),
)  # fmt: skip
AMD, ARM = (Digest.of(raw) for raw in MULTI.manifests[:2])
WITH = SyncOptions(referrers=True)


def tag_of(subject: Digest, kind: str = "") -> str:
    return f"sha256-{subject.hex}{kind}"


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root") as found:
        scripted.launcher.answers += [curl()]
        found.source.hold("team/app:1", APP)
        found.source.hold("multi:1", MULTI)
        yield found


def brought(two: Between, *lines: str) -> set[str]:
    """What is in the directory afterwards."""
    two.sync(two.job(archive=two.directory), *lines, options=WITH)
    return {f"{name}:{tag}" for name in two.storage.repositories() for tag in two.storage.tags(name)}


@pytest.mark.slow
def test_signatures_come_along_under_the_name_of_their_image(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.source.hold(f"team/app:{tag_of(APP.top, '.att')}", SBOM)
    two.source.hold("team/app:2", ABOUT)
    found = brought(two, "team/app:1 => site/app:v1")
    assert found == {"site/app:v1", f"site/app:{tag_of(APP.top, '.sig')}", f"site/app:{tag_of(APP.top, '.att')}"}
    assert two.storage.resolve("site/app", tag_of(APP.top, ".sig")) == SIGNATURE.top


def test_without_being_asked_for_they_stay(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.sync(two.job(archive=two.directory), "team/app:1")
    assert two.storage.tags("team/app") == ("1",)
    assert two.source.asked("tags/list") == []


@pytest.mark.slow
def test_what_is_about_a_signature_comes_too(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.source.hold(f"team/app:{tag_of(SIGNATURE.top, '.att')}", ABOUT)
    assert f"team/app:{tag_of(SIGNATURE.top, '.att')}" in brought(two, "team/app:1")


@pytest.mark.slow
def test_signatures_that_are_about_each_other_end(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.source.hold(f"team/app:{tag_of(SIGNATURE.top, '.sig')}", SIGNATURE)
    assert len(brought(two, "team/app:1")) == 3


@pytest.mark.slow
def test_what_is_about_one_thing_of_an_index_comes_though_another_was_seen(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.source.hold(f"team/app:{tag_of(APP.top)}", index_of([SIGNATURE, SBOM]))
    two.source.hold(f"team/app:{tag_of(SBOM.top, '.att')}", ABOUT)
    assert f"team/app:{tag_of(SBOM.top, '.att')}" in brought(two, "team/app:1")


@pytest.mark.slow
def test_each_platform_of_an_image_has_its_own(two: Between) -> None:
    tops = (MULTI.top, AMD, ARM)
    for subject in tops:
        two.source.hold(f"multi:{tag_of(subject, '.sig')}", SIGNATURE)
    assert brought(two, "multi:1") == {"multi:1", *(f"multi:{tag_of(subject, '.sig')}" for subject in tops)}


@pytest.mark.slow
def test_a_platform_that_stays_leaves_its_signature(two: Between) -> None:
    for subject in (MULTI.top, AMD, ARM):
        two.source.hold(f"multi:{tag_of(subject, '.sig')}", SIGNATURE)
    found = brought(two, "multi:1 platform=linux/amd64")
    assert found == {"multi:1", f"multi:{tag_of(MULTI.top, '.sig')}", f"multi:{tag_of(AMD, '.sig')}"}


@pytest.mark.slow
def test_a_signature_of_many_platforms_comes_whole(two: Between) -> None:
    """Which platforms of an image are wanted says nothing of what is about it."""
    two.source.hold(f"multi:{tag_of(AMD)}", index_of([SIGNATURE, SBOM], ["linux/arm64", None]))
    brought(two, "multi:1 platform=linux/amd64")
    top = two.storage.resolve("multi", tag_of(AMD))
    assert top is not None
    closure = two.storage.closure("multi", top)
    assert closure is not None
    assert {manifest.digest for manifest in closure.manifests} == {top, SIGNATURE.top, SBOM.top}


@pytest.mark.slow
def test_tags_of_a_repository_are_asked_for_once(two: Between) -> None:
    two.source.hold("team/app:2", SBOM)
    two.source.hold(f"team/app:{tag_of(SBOM.top, '.sig')}", SIGNATURE)
    found = brought(two, "team/app:1", "team/app:2")
    assert found == {"team/app:1", "team/app:2", f"team/app:{tag_of(SBOM.top, '.sig')}"}
    assert len(two.source.asked("/v2/team/app/tags/list")) == 1


@pytest.mark.slow
def test_what_the_list_names_itself_is_there_once(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    two.source.hold("other:1", ABOUT)
    line = f"other:1 => team/app:{tag_of(APP.top, '.sig')}"
    brought(two, "team/app:1", line)
    assert two.storage.resolve("team/app", tag_of(APP.top, ".sig")) == ABOUT.top


@pytest.mark.slow
def test_an_image_that_is_gone_brings_nothing_and_is_named_once(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top, '.sig')}", SIGNATURE)
    report = two.run(two.job(archive=two.directory), "gone:1", "team/app:1", options=WITH).report
    assert report is not None
    assert [f"{failed.entry.dest}" for failed in report.failed] == ["gone:1"]
    assert len(report.copied) == 2


# --- the API of a registry


def listed(image: Image) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": f"{image.top}", "size": len(image.raw), "artifactType": "x/y"}


@pytest.mark.slow
def test_what_the_api_lists_gets_the_tag_that_others_look_for(two: Between) -> None:
    for image in (SIGNATURE, SBOM):
        two.source.hold("team/app:hidden", image)
    del two.source.manifests["team/app", "hidden"]
    two.source.referrers = {f"{APP.top}": [listed(SIGNATURE), listed(SBOM)]}
    assert brought(two, "team/app:1") == {"team/app:1", f"team/app:{tag_of(APP.top)}"}
    top = two.storage.resolve("team/app", tag_of(APP.top))
    assert top is not None
    index = parse_manifest(two.storage.blob_path(top).read_bytes())
    assert index.media_type == OCI_INDEX
    closure = two.storage.closure("team/app", top)
    assert closure is not None
    assert {manifest.digest for manifest in closure.manifests} == {top, SIGNATURE.top, SBOM.top}


@pytest.mark.slow
def test_what_is_about_what_the_api_lists_comes_too(two: Between) -> None:
    for image in (SIGNATURE, ABOUT):
        two.source.hold("team/app:hidden", image)
    two.source.referrers = {f"{APP.top}": [listed(SIGNATURE)], f"{SIGNATURE.top}": [listed(ABOUT)]}
    found = brought(two, "team/app:1")
    assert found >= {f"team/app:{tag_of(APP.top)}", f"team/app:{tag_of(SIGNATURE.top)}"}


@pytest.mark.slow
def test_the_index_of_referrers_is_the_same_in_whatever_order_they_are_listed(two: Between) -> None:
    digests = list[Digest | None]()
    for order in ([SIGNATURE, SBOM], [SBOM, SIGNATURE]):
        for image in order:
            two.source.hold("team/app:hidden", image)
        # neither the order of a list nor that of an object's keys means anything
        items = [listed(image).items() for image in order]
        two.source.referrers = {f"{APP.top}": [dict(reversed(i) if digests else i) for i in items]}
        brought(two, "team/app:1")
        digests.append(two.storage.resolve("team/app", tag_of(APP.top)))
    assert digests[0] == digests[1]
    index = two.storage.blob_path(digests[0] or APP.top).read_bytes()
    assert index == b"".join(index.split())


@pytest.mark.slow
def test_the_tag_counts_only_where_there_is_no_api(two: Between) -> None:
    two.source.hold(f"team/app:{tag_of(APP.top)}", index_of([SIGNATURE]))
    two.source.hold("team/app:sbom", SBOM)
    brought(two, "team/app:1")
    assert two.storage.resolve("team/app", tag_of(APP.top)) == index_of([SIGNATURE]).top
    two.source.referrers = {f"{APP.top}": [listed(SBOM)]}
    brought(two, "team/app:1")
    assert two.storage.resolve("team/app", tag_of(APP.top)) not in {None, index_of([SIGNATURE]).top}


@pytest.mark.slow
def test_an_api_that_lists_nothing_makes_no_index(two: Between) -> None:
    two.source.referrers = {}
    assert brought(two, "team/app:1", "multi:1") == {"team/app:1", "multi:1"}
    subjects = {APP.top, MULTI.top, AMD, ARM}
    assert len(two.source.asked("/referrers/")) == len(subjects)


@pytest.mark.slow
def test_a_registry_without_the_api_is_asked_for_it_once(two: Between) -> None:
    brought(two, "team/app:1", "multi:1")
    assert len(two.source.asked("/referrers/")) == 1


@pytest.mark.parametrize("what", ["/referrers/", "/tags/list"])
def test_an_image_whose_referrers_cannot_be_listed_fails_and_no_other_one(two: Between, what: str) -> None:
    """It would come without its signatures, and nobody would know."""
    two.source.hold("multi:1", APP)
    two.source.fails = lambda request: 500 if "/team/app/" in request and what in request else None
    report = two.run(two.job(archive=two.directory), "team/app:1", "multi:1", options=WITH).report
    assert report is not None
    (failed,) = report.failed
    assert f"{failed.entry.dest}" == "team/app:1"
    assert failed.error.startswith("its referrers cannot be listed: ")
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["multi:1"]


# --- in a storage that has the images already


def found_there(root: Path, *lines: str) -> ImageList:
    return with_referrers_there(Storage(root), parse_images("\n".join(lines).encode(), "images.list"), SILENT)


def test_a_package_has_what_its_archive_has_about_the_images(tmp_path: Path) -> None:
    signature = f"site/app:{tag_of(APP.top, '.sig')}"
    root = make_storage(tmp_path / "root", {"site/app:1": APP, signature: SIGNATURE, "other:1": ABOUT})
    images = found_there(root, "r.example/app:1 => site/app:1", "gone:1")
    assert [f"{entry.dest}" for entry in images.entries] == ["site/app:1", "gone:1", signature]
    added = images.entries[-1]
    assert (added.line, added.platforms, added.source.tag) == (1, (), tag_of(APP.top, ".sig"))
    assert added.text == f"r.example/app:{tag_of(APP.top, '.sig')} => {signature}"


def test_what_an_archive_has_of_a_registry_s_api_is_in_the_package_too(tmp_path: Path) -> None:
    index = f"site/app:{tag_of(APP.top)}"
    root = make_storage(tmp_path / "root", {"site/app:1": APP, index: index_of([SIGNATURE, SBOM])})
    images = parse_images(f"r.example/app:1@{APP.top} => site/app:1".encode(), "images.lock")
    locked = replace(images, entries=tuple(replace(entry, locked=True) for entry in images.entries))
    found = with_referrers_there(Storage(root), locked, SILENT).entries
    assert [f"{entry.dest}" for entry in found] == ["site/app:1", index]
    assert [entry.locked for entry in found] == [True, False], "no lock says what it is"
