"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.volume_places import volumes_also_in
from regwrap.core.errors import UsageError
from regwrap.core.location import Engine
from regwrap.core.moves import Existing


def _look_for_volumes(context: typer.Context, directories: list[Path] | None) -> list[Path] | None:
    """As long as the command runs."""
    if directories:
        context.with_resource(volumes_also_in(directories))
    return directories


ListArgument = Annotated[
    str, typer.Argument(metavar="IMAGES.LIST", help="The list of images, a lock, or a bundle; - reads standard input.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Configuration (default: $REGWRAP_CONFIG, ./regwrap.yaml, ~/.config)."
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="NAME|HOST[:PORT]|DIR", help="Registry for lines without one; DIR is a storage."),
]
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive", "--dest", metavar="NAME|DIR|HOST[:PORT]", help="Where images are kept (default: embedded)."
    ),
]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        "--history",
        "--archive",
        metavar="NAME|DIR|oci:DIR:TAG",
        help="Storage to read, never written (default: embedded), or a baked image.",
    ),
]
UpperOption = Annotated[
    Path | None,
    typer.Option(
        "--upper",
        metavar="DIR",
        help="Directory for the overlay's upper layer (default: $REGWRAP_SCRATCH, else beside the output; the working"
        " directory for workspace).",
    ),
]
ImageSetArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE.TAR|STORAGE", help="A bundle, or the root directory of a storage.")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, max=64, help="Number of blobs, or images, to copy in parallel.")
]
EngineOption = Annotated[
    Engine | None,
    typer.Option(
        "--engine",
        help="How to copy: blobs by curl, a stream between registries, one skopeo copy per image, or skopeo sync.",
    ),
]
ReferrersOption = Annotated[
    bool, typer.Option("--referrers", help="Also copy referrers: signatures, attestations, SBOMs.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Bundle to write.")]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the release, kept in the bundle (for example acme-2.4.1)."),
]
SinceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--since",
        metavar="BUNDLE.TAR|RECEIPT",
        help="Write a delta: leave out what this release, bundle.json or site's receipt has; may be repeated.",
    ),
]
VolumeSizeOption = Annotated[
    str | None,
    typer.Option("--volume-size", metavar="SIZE", help="Cut the bundle into volumes FILE.001, FILE.002 … (4GB)."),
]
VolumeOption = Annotated[
    int | None,
    typer.Option("--volume", metavar="N", min=1, help="Make only this volume again; the others stay as they are."),
]
ParityOption = Annotated[
    str | None,
    typer.Option("--parity", metavar="PERCENT", help="Add recovery files by par2, for regwrap repair (10%)."),
]
VolumesFromOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--volumes-from",
        metavar="DIR",
        help="Also look here for the volumes of bundles; may be repeated.",
        callback=_look_for_volumes,
    ),
]
SignKeyOption = Annotated[
    Path | None,
    typer.Option("--sign-key", metavar="KEY", help="Sign the bundle with this ssh key, or the agent's key of KEY.pub."),
]
SignatureOption = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="The bundle's signature (default: BUNDLE.TAR.sig).")
]
SignersOption = Annotated[
    Path | None,
    typer.Option(
        "--signers", metavar="FILE", help="Refuse a bundle that none of these has signed (ssh-keygen's format)."
    ),
]
SignedByOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--signed-by", metavar="KEY", help="Each image is signed by one of these cosign keys; may be repeated."
    ),
]
BaseOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--base", metavar="BUNDLE.TAR|STORAGE", help="What has the blobs that a delta requires; may be repeated."
    ),
]
MaxSizeOption = Annotated[
    str | None,
    typer.Option("--max-size", metavar="SIZE", help="End with exit code 1 before writing anything larger (4.7GB)."),
]
ExistingOption = Annotated[
    Existing | None,
    typer.Option(
        "--existing", help="What to do if a tag already points to another image (default: fail, and change nothing)."
    ),
]
ReplaceTagsOption = Annotated[bool, typer.Option("--replace-tags", help="The same as --existing replace.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and why.")]
FailedOption = Annotated[
    Path | None,
    typer.Option(
        "--failed", metavar="FILE", help="File for the lines that failed (default: failed.list; of a shard its own)."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show only results and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show each program as it is started (redacted).")]
LockedOption = Annotated[
    bool, typer.Option("--locked", help="Use the digests of the lock, even if a tag has drifted since.")
]
LockFileOption = Annotated[
    Path | None,
    typer.Option(
        "--lock-file", metavar="FILE", help="Lock file (default: images.lock beside the list); implies --locked."
    ),
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Process only part K of N parts of the list.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write the outcome of each image as JSON (docs/report.md)."),
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the same as JUnit XML, one test case per image.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Also write an HTML page: one file, works offline.")
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Hash every blob first, not only the manifests.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]


def existing_of(existing: Existing | None, *, replace_tags: bool) -> Existing:
    """What the two options say together."""
    if replace_tags and existing not in {None, Existing.REPLACE}:
        raise UsageError(f"--replace-tags and --existing {existing} exclude each other", hint="give one of them")
    return Existing.REPLACE if replace_tags else existing or Existing.FAIL
