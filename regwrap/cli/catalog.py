"""Names and help texts of the commands: all that `regwrap --help` needs, without importing a command.

A test runs every example, in this order, in one directory: each may use the files of those before it.
"""

from __future__ import annotations

from typing import Final

from regwrap.cli.entry import Entry

EPILOG: Final = (
    "Exit codes: 0 done, 1 some images failed, 2 usage or configuration, 3 a program, the network or the disk failed,"
    " 4 damaged data, 70 a bug, 130 or 143 interrupted."
)
ABOUT: Final = "Turn an images.list into one install package for registries without internet."
# Commands with commands of their own.
FAMILIES: Final = {
    "list": "Make an images.list from manifests or from what a registry has.",
    "report": "Show and merge the reports that sync, release and push write.",
}
_START, _PACK, _INSTALL = "1. Start", "2. Copy and package", "3. Install at the customer's"
_CHECK, _CONVERT, _TIDY = "4. Check", "5. Other forms", "6. Tidy up"
GROUPS: Final = (_START, _PACK, _INSTALL, _CHECK, _CONVERT, _TIDY)


COMMANDS: Final = (
    Entry(
        name="init",
        group=_START,
        function="start.init",
        summary="Write a commented regwrap.yaml and a first images.list.",
        more="Asks for the registries on a terminal, unless options or --yes answer. At the end each of them is asked,"
        " as doctor does. Existing files are overwritten only with --force; an existing list is kept unless you ask for"
        " another one.",
        examples=(
            (
                "images come from cicd.example.com and are kept in ./product/archive",
                "regwrap init product --source cicd.example.com --archive ./archive --yes",
            ),
            (
                "the first list from rendered Helm or Kustomize manifests",
                "regwrap init product-2 --source cicd.example.com --yes --from-manifests rendered.yaml",
            ),
        ),
    ),
    Entry(
        name="list from-manifests",
        group=_START,
        function="lists.from_manifests",
        summary="Find the images in Kubernetes YAML.",
        more="Lists what image: and similar keys name, with the registry and tag beside it, then every other reference"
        " (variables, arguments, ConfigMaps, annotations, defaults) with its place. An unknown tag is a note; a"
        " document that cannot be read is reported, with exit code 1. Also reads standard input; docs/images-list.md"
        " has all forms.",
        examples=(
            (
                "every image of rendered manifests, sorted, without duplicates",
                "regwrap list from-manifests rendered.yaml -o chart.list",
            ),
            (
                "the images that run in a cluster: kubectl get pods -A -o yaml | ...",
                "cat rendered.yaml | regwrap list from-manifests > running.list",
            ),
        ),
    ),
    Entry(
        name="list from-registry",
        group=_START,
        function="lists.from_registry",
        summary="List all tags of a registry, or of a storage directory.",
        more="A prefix selects the repositories below it. Public registries do not list their repositories: use the"
        " rules in docs/images-list.md.",
        examples=(
            (
                "all tags below app of the registry that the configuration calls cicd",
                "regwrap list from-registry cicd/app -o app.list",
            ),
            ("all tags in a registry's storage directory", "regwrap list from-registry ./storage"),
        ),
    ),
    Entry(
        name="doctor",
        group=_START,
        function="doctor.doctor",
        summary="Show which commands work on this machine and what the rest need.",
        more="Asks each configured registry: whether the login works, whether it may push, how long its certificate is"
        " valid. Exit code 3 if a command cannot work or a registry cannot be used. Overlays need privileges, but every"
        " task also works without them: if only overlays are missing, the exit code is 0.",
        examples=(
            ("programs and versions, free space, overlays", "regwrap doctor"),
            ("the same as JSON", "regwrap doctor --json"),
        ),
    ),
    Entry(
        name="sync",
        group=_PACK,
        function="sync.sync",
        summary="Copy the listed images into the archive.",
        more="Images already in the archive are skipped.",
        examples=(
            ("what would be copied, and why", "regwrap sync images.list --source cicd --dry-run"),
            (
                "half of the list, for the first of two CI jobs",
                "regwrap sync images.list --source cicd --shard 1/2 --report shard-1.json",
            ),
        ),
    ),
    Entry(
        name="lock",
        group=_PACK,
        function="lock.lock",
        summary="Pin every image to its current digest.",
        more="Also expands the configuration's images: rules.\n\n"
        "The lock is an images.list too: one image per line, made for git diff.",
        examples=(
            ("write images.lock beside the list", "regwrap lock images.list --source cicd"),
            ("exit code 1 if a tag has drifted since", "regwrap lock images.list --source cicd --check"),
        ),
    ),
    Entry(
        name="package",
        group=_PACK,
        function="package.package",
        summary="Write one bundle with exactly the listed images.",
        more="Reads the archive, never changes it.",
        examples=(
            (
                "from the archive; missing images are fetched for this bundle only",
                "regwrap package images.list --source cicd -o release-v1.1.tar",
            ),
            (
                "in volumes of 1 MB, with recovery data",
                "regwrap package images.list --source cicd --volume-size 1MB --parity 10% -o parity-v1.2.tar",
            ),
        ),
    ),
    Entry(
        name="release",
        group=_PACK,
        function="release.release",
        summary="Sync, package and verify.",
        more="Writes FILE, its checksum FILE.sha256 and a report beside it.",
        examples=(
            ("all three steps", "regwrap release images.list --source cicd --name acme-1.2 -o release-v1.2.tar"),
            (
                "only what a site lacks that has v1.1, by the digests of images.lock",
                "regwrap release images.list --source cicd --locked --since release-v1.1.tar -o release-v1.2-delta.tar",
            ),
        ),
    ),
    Entry(
        name="workspace",
        group=_PACK,
        function="workspace.workspace",
        summary="Serve the listed images on top of a read-only storage.",
        more="Runs until Ctrl-C, or while COMMAND runs.\n\n"
        "The registry listens on loopback and accepts pushes; the listed repositories already have the blobs of the"
        " history. Everything added is deleted at the end; COMMAND can package it before.",
        examples=(
            (
                "run a command beside a registry with exactly the list",
                "regwrap workspace images.list --source cicd --"
                " sh -c 'skopeo list-tags --tls-verify=false docker://$REGWRAP_REGISTRY/app'",
            ),
            (
                "the merged storage is a directory too",
                "regwrap workspace images.list --source cicd --history ./storage"
                " -- sh -c 'ls $REGWRAP_STORAGE/docker/registry/v2'",
            ),
        ),
    ),
    Entry(
        name="deploy",
        group=_INSTALL,
        function="deploy.deploy",
        summary="Merge a bundle into a registry's storage.",
        more="Checks the whole bundle first; writes blobs first, tags last.",
        examples=(
            ("check the bundle, change nothing", "regwrap deploy release-v1.1.tar ./site --dry-run"),
            ("into a storage directory, new or existing", "regwrap deploy release-v1.2.tar ./site"),
        ),
    ),
    Entry(
        name="rollback",
        group=_INSTALL,
        function="rollback.roll_back",
        summary="Go back to a release that a storage has, or forward again.",
        more="Looks at every image of the release first, then moves the tags. If anything of it is missing, nothing is"
        " changed. Tags of other releases stay.",
        examples=(
            ("which tags would move, from what to what", "regwrap rollback ./site acme-1.2 --dry-run"),
            ("a release that deploy has recorded, by name or id", "regwrap rollback ./site acme-1.2"),
        ),
    ),
    Entry(
        name="push",
        group=_INSTALL,
        function="push.push",
        summary="Push a bundle to any registry, straight from the tar.",
        more="Images already in the registry are skipped. A tag that points to another image is replaced only with"
        " --existing replace.",
        examples=(
            ("what would be pushed", "regwrap push release-v1.1.tar harbor/product --dry-run"),
            (
                "below product/ in the registry that the configuration calls harbor",
                "regwrap push release-v1.1.tar harbor/product",
            ),
        ),
    ),
    Entry(
        name="serve",
        group=_INSTALL,
        function="serve.serve",
        summary="Serve a bundle as a read-only registry, in place, until Ctrl-C.",
        more="Prints its URL when it is ready.\n\n"
        "docker and skopeo can pull from it; nothing is unpacked or copied. GET /v2/ answers as soon as it is up. In a"
        " browser the URL shows what is served, and the command that pulls each image.",
        examples=(
            ("for this machine, on a free port", "regwrap serve release-v1.1.tar --addr 127.0.0.1:0"),
            (
                "hash every blob first, log every request",
                "regwrap serve release-v1.1.tar --addr 127.0.0.1:0 --verify --verbose",
            ),
        ),
    ),
    Entry(
        name="verify",
        group=_CHECK,
        function="verify.verify",
        summary="Check a bundle, storage or registry for damage.",
        more="Reads every link and manifest, and the size and sha256 of every blob; of a registry every manifest of the"
        " list, and asks for each blob (--hash: fetches it). Exit code 4 for damage, 1 if it is undamaged and not what"
        " the list says. --receipt, --html and --junit write down what was found.",
        examples=(
            (
                "a bundle, and that it holds exactly the listed images",
                "regwrap verify release-v1.1.tar --list images.list",
            ),
            (
                "that a site has all of a release, and maybe others, with a receipt",
                "regwrap verify ./site --list release-v1.1.tar --receipt receipt.json --html receipt.html",
            ),
        ),
    ),
    Entry(
        name="repair",
        group=_CHECK,
        function="repair.repair",
        summary="Repair a bundle or its volumes with recovery files.",
        more="package and release write them with --parity, by par2. What was repaired is hashed.",
        examples=(
            ("the bundle of a medium with bad sectors", "regwrap repair parity-v1.2.tar"),
            ("what was repaired, as JSON", "regwrap repair parity-v1.2.tar --json"),
        ),
    ),
    Entry(
        name="releases",
        group=_CHECK,
        function="releases.releases",
        summary="Show which releases a storage has, and what is left of each.",
        more="deploy and import record each release. It is current if every tag has its image, partly replaced if some"
        " have another one now, incomplete if data of it was deleted. --html writes a page that has every tag too, and"
        " the receipts of verify.",
        examples=(
            (
                "what is here, since when; the page also says what each alone holds",
                "regwrap releases ./site --html site.html",
            ),
            ("note one that came by tar x or push", "regwrap releases ./site --adopt release-v1.1.tar"),
        ),
    ),
    Entry(
        name="inspect",
        group=_CHECK,
        function="bundles.inspect",
        summary="Show what is in a bundle.",
        more="Lists images, platforms, digests, sizes, and the bytes that only one image needs.",
        examples=(
            ("as a table", "regwrap inspect release-v1.1.tar"),
            ("as JSON", "regwrap inspect release-v1.1.tar --json"),
        ),
    ),
    Entry(
        name="diff",
        group=_CHECK,
        function="diff.diff",
        summary="Show what differs between two lists, locks, bundles or receipts.",
        more="Added, removed, renamed and changed images, the new bytes of each, and what is shared. Of bundles also"
        " version, revision and creation time, from the configs' labels.",
        examples=(
            ("two releases, for a terminal", "regwrap diff release-v1.1.tar release-v1.2.tar"),
            ("for the release notes", "regwrap diff release-v1.1.tar release-v1.2.tar --format markdown > notes.md"),
        ),
    ),
    Entry(
        name="report show",
        group=_CHECK,
        function="reports.show_report",
        summary="Show a report as text.",
        more="Exit code 1 if an image failed.",
        examples=(
            ("the outcome of each image", "regwrap report show shard-1.json"),
            ("in a script", "regwrap report show shard-1.json >summary.txt || echo 'some images failed'"),
        ),
    ),
    Entry(
        name="report merge",
        group=_CHECK,
        function="reports.merge_reports",
        summary="Merge several reports into one.",
        more="If an image is in several reports, the last outcome counts.",
        examples=(
            ("of two shards", "regwrap report merge shard-1.json shard-2.json -o report.json"),
            (
                "and as JUnit XML for the CI system",
                "regwrap report merge shard-1.json shard-2.json -o report.json --junit junit.xml",
            ),
        ),
    ),
    Entry(
        name="bake",
        group=_CONVERT,
        function="bake.bake",
        summary="Build a registry image that contains the images.",
        more="Needs no daemon and no root; the same input gives the same digest.",
        examples=(
            (
                "the images alone; --base adds them to a registry image",
                "regwrap bake release-v1.1.tar --to oci:baked:v1.1",
            ),
            (
                "blobs without tags, so that later pushes can reuse layers",
                "regwrap bake ./site --history --to oci:baked:history",
            ),
        ),
    ),
    Entry(
        name="export",
        group=_CONVERT,
        function="convert.export",
        summary="Write all images as skopeo directories or an OCI layout.",
        more="Keeps every byte and digest.",
        examples=(
            ("one directory per image", "regwrap export release-v1.1.tar exported"),
            ("one OCI layout for all", "regwrap export release-v1.1.tar layout --format oci"),
        ),
    ),
    Entry(
        name="join",
        group=_CONVERT,
        function="join.join",
        summary="Make the whole bundle from a delta and its base.",
        more="Byte for byte the bundle that package writes without --since; every blob is hashed.",
        examples=(
            ("with the older bundle", "regwrap join release-v1.1.tar release-v1.2-delta.tar -o joined-v1.2.tar"),
            ("with a storage that has the older release", "regwrap join ./site release-v1.2-delta.tar -o joined.tar"),
        ),
    ),
    Entry(
        name="import",
        group=_CONVERT,
        function="convert.import_",
        summary="Import skopeo directories or an OCI layout into a storage.",
        more="Hashes everything; writes blobs first, tags last.",
        examples=(
            ("directories written by skopeo or export", "regwrap import exported ./imported"),
            ("an OCI layout", "regwrap import oci:layout ./imported"),
        ),
    ),
    Entry(
        name="gc",
        group=_TIDY,
        function="gc.gc",
        summary="Delete everything that no kept image uses.",
        more="Keeps every tag unless told what to keep: releases that deploy and import have recorded, lists, bundles,"
        " the newest tags. With a release, a bundle or a lock, images without a tag are kept too. The release in use is"
        " kept in any case, unless --drop-current says otherwise.",
        examples=(
            (
                "what would be deleted if only the last two releases stay, and what each alone holds",
                "regwrap gc ./site --keep-releases 2 --dry-run",
            ),
            (
                "keep a list and the three newest tags of each repository",
                "regwrap gc ./site --keep images.list --keep-last 3 --offline",
            ),
        ),
    ),
)
