"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from regwrap.core.place import Engine

ListArgument = Annotated[str, typer.Argument(metavar="IMAGES.LIST", help="The list of images; - reads standard input.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration (else $REGWRAP_CONFIG, ./regwrap.yaml, ~/.config)."),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="NAME|HOST[:PORT]|DIR", help="Where lines without a registry come from; DIR is a storage."
    ),
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
        help="The storage that is read, never written (default: embedded), or a baked image.",
    ),
]
UpperOption = Annotated[
    Path | None,
    typer.Option(
        "--upper",
        metavar="DIR",
        help="Directory for the overlay's upper layer (default: $REGWRAP_SCRATCH, else beside the output).",
    ),
]
StockArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE.TAR|STORAGE", help="A bundle, or a storage's root directory.")
]
JobsOption = Annotated[int | None, typer.Option("--jobs", "-j", min=1, max=64, help="Images at the same time.")]
EngineOption = Annotated[
    Engine | None,
    typer.Option("--engine", help="How blobs travel: skopeo's pipes (stream), a skopeo per image, or skopeo sync."),
]
ReferrersOption = Annotated[
    bool, typer.Option("--referrers", help="With what is about the images: signatures, attestations, SBOMs.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show each program as it is started (redacted).")]
LockedOption = Annotated[
    bool, typer.Option("--locked", help="Take the digests of the lock, even where a tag has moved since.")
]
LockFileOption = Annotated[
    Path | None,
    typer.Option(
        "--lock-file", metavar="FILE", help="The lock (default: beside the list, images.lock); means --locked."
    ),
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Only this part of the list; the N parts are all of it.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="What came of each image, as JSON (docs/report.md).")
]
JunitOption = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="The same as JUnit XML, a test case an image.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write it as a page to look at too: one file, no network.")
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Hash every blob first, not only the manifests.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as one JSON document on stdout.")]
