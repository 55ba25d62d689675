"""What the commands are called and what their help says: all that `regwrap --help` needs without importing one of them.

A test runs every example, in this order, in one directory: each may use what those before it have made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EPILOG: Final = (
    "Exit codes: 0 done, 1 some images failed, 2 usage or configuration, 3 a program, the network or the disk failed,"
    " 4 damaged data, 70 a bug, 130 or 143 interrupted."
)
ABOUT: Final = "Turn an images.list into one install package for registries without internet."
# Commands with commands of their own.
FAMILIES: Final = {
    "list": "Make an images.list from manifests or from what a registry has.",
    "report": "Show and merge what sync --report has written.",
}
_START, _PACK, _INSTALL = "1. Start", "2. Bring and pack", "3. Install at the customer's"
_CHECK, _CONVERT, _TIDY = "4. Check", "5. Other forms", "6. Tidy up"
GROUPS: Final = (_START, _PACK, _INSTALL, _CHECK, _CONVERT, _TIDY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command. `name` is what is typed, `function` is MODULE.NAME below regwrap.cli, `examples` are what it is for,
    and what is typed."""

    name: str
    group: str
    function: str
    summary: str
    more: str = ""
    examples: tuple[tuple[str, str], ...]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.name.split(" "))

    @property
    def help(self) -> str:
        first, *others = self.more.split("\n\n")
        text = "\n\n".join([f"{self.summary} {first}".strip(), *others])
        examples = "\n".join(f"  # {what}\n  {command}" for what, command in self.examples)
        return f"{text}\n\n\b\nExamples:\n{examples}"


COMMANDS: Final = (
    Entry(
        name="init",
        group=_START,
        function="start.init",
        summary="Write a commented regwrap.yaml and a first images.list.",
        more="On a terminal it asks for the registries; options answer beforehand, and --yes asks nothing. What is"
        " there is never overwritten without --force; a list that is there stays, unless another one is asked for.",
        examples=(
            (
                "images come from cicd.example.com, and are kept in ./product/archive",
                "regwrap init product --source cicd.example.com --archive ./archive --yes",
            ),
            (
                "the first list from what Helm or Kustomize have rendered",
                "regwrap init product-2 --source cicd.example.com --yes --from-manifests rendered.yaml",
            ),
        ),
    ),
    Entry(
        name="list from-manifests",
        group=_START,
        function="lists.from_manifests",
        summary="Find the images in Kubernetes YAML.",
        more="In Pods and all that makes Pods, in other resources where they are called image, and in Helm's values."
        " Reads standard input too: helm template CHART | regwrap list from-manifests",
        examples=(
            (
                "every image of rendered manifests, sorted, each once",
                "regwrap list from-manifests rendered.yaml -o chart.list",
            ),
            (
                "what runs in a cluster: kubectl get pods -A -o yaml | ...",
                "cat rendered.yaml | regwrap list from-manifests > running.list",
            ),
        ),
    ),
    Entry(
        name="list from-registry",
        group=_START,
        function="lists.from_registry",
        summary="List all tags of a registry, or of a storage directory.",
        more="A prefix takes the repositories below it. Public registries do not say what they have: see the rules in"
        " docs/images-list.md.",
        examples=(
            (
                "all tags below app of the registry that the configuration calls cicd",
                "regwrap list from-registry cicd/app -o app.list",
            ),
            ("what a registry's storage directory has", "regwrap list from-registry ./storage"),
        ),
    ),
    Entry(
        name="doctor",
        group=_START,
        function="doctor.doctor",
        summary="Say which commands work here, and what the others lack.",
        more="Exit code 3 if one can't be done. Overlays need privileges, and everything can be done without them:"
        " where only they are missing, it is 0.",
        examples=(
            ("programs, their versions, room, overlays", "regwrap doctor"),
            ("the same for a program", "regwrap doctor --json"),
        ),
    ),
    Entry(
        name="sync",
        group=_PACK,
        function="sync.sync",
        summary="Bring the listed images into the archive.",
        more="What is there already is not sent again.",
        examples=(
            ("what would be brought, and why", "regwrap sync images.list --source cicd --dry-run"),
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
        summary="Write down what each image is now, by digest.",
        more="And what the rules of the configuration mean today.\n\n"
        "The lock is a list too, one line an image, made for git diff.",
        examples=(
            ("write images.lock beside the list", "regwrap lock images.list --source cicd"),
            ("has a tag moved since? Exit code 1 if so", "regwrap lock images.list --source cicd --check"),
        ),
    ),
    Entry(
        name="package",
        group=_PACK,
        function="package.package",
        summary="Write one bundle with exactly the listed images.",
        more="From a storage that is only read.",
        examples=(
            (
                "from the archive; what it lacks is brought, and not kept",
                "regwrap package images.list --source cicd -o release-v1.1.tar",
            ),
            (
                "on top of a storage that stays as it is",
                "regwrap package images.list --source cicd --history ./storage --strategy overlay -o overlay-v1.1.tar",
            ),
        ),
    ),
    Entry(
        name="release",
        group=_PACK,
        function="release.release",
        summary="Sync, package and verify.",
        more="Writes FILE, FILE.sha256 and the facts of the run beside it.",
        examples=(
            ("all in one", "regwrap release images.list --source cicd -o release-v1.2.tar"),
            (
                "the digests of images.lock, even where tags have moved",
                "regwrap release images.list --source cicd --locked -o release-v1.3.tar",
            ),
        ),
    ),
    Entry(
        name="workspace",
        group=_PACK,
        function="workspace.workspace",
        summary="Serve the listed images on top of a storage that is only read.",
        more="Until Ctrl-C, or while COMMAND runs.\n\n"
        "A registry on loopback takes pushes too; blobs of the history are there already for the listed repositories."
        " All that was added is gone at the end, unless COMMAND has packed it.",
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
        more="All is checked first; blobs go in first, tags last.",
        examples=(
            ("look at the bundle, change nothing", "regwrap deploy release-v1.1.tar ./site --dry-run"),
            ("into a storage directory, new or in use", "regwrap deploy release-v1.1.tar ./site"),
        ),
    ),
    Entry(
        name="push",
        group=_INSTALL,
        function="push.push",
        summary="Push a bundle into any registry, straight from the tar.",
        more="What is there already is not sent again; a tag that is another image there is moved only with"
        " --replace-tags.",
        examples=(
            ("what would be sent", "regwrap push release-v1.1.tar harbor/product --dry-run"),
            (
                "below product/, in the registry that the configuration calls harbor",
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
        "docker and skopeo pull from it; nothing is unpacked or copied. GET /v2/ says whether it is there.",
        examples=(
            ("for this machine, on a free port", "regwrap serve release-v1.1.tar --addr 127.0.0.1:0"),
            (
                "every blob is hashed first, every request shown",
                "regwrap serve release-v1.1.tar --addr 127.0.0.1:0 --verify --verbose",
            ),
        ),
    ),
    Entry(
        name="verify",
        group=_CHECK,
        function="bundles.verify",
        summary="Prove that a bundle or a storage is whole.",
        more="Every link, every manifest, every blob's size and sha256.",
        examples=(
            ("a bundle, and that it has exactly the list", "regwrap verify release-v1.1.tar --list images.list"),
            ("a storage directory", "regwrap verify ./site"),
        ),
    ),
    Entry(
        name="inspect",
        group=_CHECK,
        function="bundles.inspect",
        summary="Show what is in a bundle.",
        more="Images, platforms, digests, sizes, and what each alone adds.",
        examples=(
            ("as a table", "regwrap inspect release-v1.1.tar"),
            ("for a program", "regwrap inspect release-v1.1.tar --json"),
        ),
    ),
    Entry(
        name="report show",
        group=_CHECK,
        function="reports.show_report",
        summary="Show a report as text.",
        more="Exit code 1 if an image failed.",
        examples=(
            ("what came of each image", "regwrap report show shard-1.json"),
            ("in a script", "regwrap report show shard-1.json >summary.txt || echo 'some images failed'"),
        ),
    ),
    Entry(
        name="report merge",
        group=_CHECK,
        function="reports.merge_reports",
        summary="Make one report of several.",
        more="Where an image is in more than one, the last outcome counts.",
        examples=(
            ("of two shards", "regwrap report merge shard-1.json shard-2.json -o report.json"),
            (
                "and for a CI that shows tests",
                "regwrap report merge shard-1.json shard-2.json -o report.json --junit junit.xml",
            ),
        ),
    ),
    Entry(
        name="bake",
        group=_CONVERT,
        function="bake.bake",
        summary="Make a registry image that has the images inside.",
        more="No daemon, no root; the same input gives the same digest.",
        examples=(
            (
                "an image with the images alone; --base names one with a registry",
                "regwrap bake release-v1.1.tar --to oci:baked:v1.1",
            ),
            (
                'what registries answer "exists" with, for later releases',
                "regwrap bake ./site --history --to oci:baked:history",
            ),
        ),
    ),
    Entry(
        name="export",
        group=_CONVERT,
        function="convert.export",
        summary="Write all images as directories that skopeo reads.",
        more="Every byte and digest stays as it is.",
        examples=(
            ("one directory for each image", "regwrap export release-v1.1.tar exported"),
            ("one OCI layout for all", "regwrap export release-v1.1.tar layout --format oci"),
        ),
    ),
    Entry(
        name="import",
        group=_CONVERT,
        function="convert.import_",
        summary="Bring such directories, or an OCI layout, into a storage.",
        more="All is hashed; blobs go in first, tags last.",
        examples=(
            ("directories that skopeo, or export, has written", "regwrap import exported ./imported"),
            ("an OCI layout", "regwrap import oci:layout ./imported"),
        ),
    ),
    Entry(
        name="gc",
        group=_TIDY,
        function="gc.gc",
        summary="Remove from a storage what no kept image needs.",
        more="Without --keep and --keep-last every tag is kept.",
        examples=(
            (
                "what would go if only the images of a release stay, and why",
                "regwrap gc ./site --keep images.list --dry-run --offline",
            ),
            (
                "those and the three newest tags of each repository stay",
                "regwrap gc ./site --keep images.list --keep-last 3 --offline",
            ),
        ),
    ),
)
