"""The command that begins a product: init."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from regwrap.cli.lists import found_in_manifests, list_of_registry
from regwrap.cli.options import QuietOption
from regwrap.cli.output import echo
from regwrap.config.locations import parse_url
from regwrap.config.starter import CONFIGURATION, FIRST_LIST, LIST, configuration_text, is_directory
from regwrap.core.errors import ExitCode, UsageError
from regwrap.core.writing import named_on_error
from regwrap.lists.manifests.text import manifests_text

_ASK_SOURCE = "Registry to copy images from, [http://]HOST[:PORT] or a storage DIR (empty: each line names its host)"
_ASK_ARCHIVE = "Archive to keep them in, DIR or HOST[:PORT] (empty: regwrap's own directory)"


_DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Directory for the files; created if missing.")]
_SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="HOST[:PORT]|PATH", help="Registry to copy images from; a path is relative to DIR."
    ),
]
_ArchiveOption = Annotated[
    str | None,
    typer.Option("--archive", metavar="DIR|HOST[:PORT]", help="Where images are kept (default: embedded)."),
]
_ManifestsOption = Annotated[
    list[Path] | None,
    typer.Option("--from-manifests", metavar="FILE.YAML", help="Make the list from manifests; - is stdin."),
]
_RegistryOption = Annotated[
    str | None,
    typer.Option("--from-registry", metavar="HOST[/PREFIX]|DIR", help="Make the list from a registry or a storage."),
]
_YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not prompt; use defaults for everything not given.")]
_ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


def init(
    directory: _DirectoryArgument = Path(),
    source: _SourceOption = None,
    archive: _ArchiveOption = None,
    manifests: _ManifestsOption = None,
    registry: _RegistryOption = None,
    yes: _YesOption = False,
    force: _ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    if manifests and registry:
        raise UsageError("--from-manifests and --from-registry exclude each other")
    makes_list = bool(manifests or registry)
    if not force:
        _refuse_overwriting(directory, makes_list=makes_list)
    asks = sys.stdin.isatty() and not yes
    found_source = _answer("--source", source, _ASK_SOURCE, asks=asks)
    found_archive = _as_directory(_answer("--archive", archive, _ASK_ARCHIVE, asks=asks))
    text, notes, problems = _first_list(manifests, registry, quiet=quiet)
    directory.mkdir(parents=True, exist_ok=True)
    wrote = [_written(directory / LIST, text, force=force)] if makes_list or not (directory / LIST).exists() else []
    wrote.append(_written(directory / CONFIGURATION, configuration_text(found_source, found_archive), force=force))
    typer.echo("\n".join(wrote))
    for problem in problems:
        typer.echo(f"regwrap: {problem}", err=True)
    if not quiet:
        for note in notes:
            typer.echo(f"note: {note}", err=True)
        place = "" if directory == Path() else f"cd {directory}, "
        again = "" if _is_valid(directory / CONFIGURATION) else f"correct {CONFIGURATION}, regwrap doctor, "
        typer.echo(f"next: {place}{again}edit {LIST}, regwrap release {LIST} -o release-v1.0.tar", err=True)
    if problems:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def _is_valid(file: Path) -> bool:
    """Tells what doctor says of the registries that were named. The files stay, whatever that is."""
    from regwrap.cli.doctor import checked_registries  # asks by HTTP
    from regwrap.cli.session import opened_session
    from regwrap.cli.settings import load
    from regwrap.report.text import registries_text

    settings = load(file)
    if not any(location.registry for location in settings.registries):
        return True
    with opened_session(quiet=True) as session:
        checks = checked_registries(session, settings)
    echo(registries_text(checks), err=True)
    return all(check.ok for check in checks)


def _first_list(
    manifests: list[Path] | None, registry: str | None, *, quiet: bool
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """A list's text, notes, and what could not be read, as list from-manifests tells it."""
    if manifests:
        found = found_in_manifests(manifests)
        return manifests_text(found), (*found.notes, found.summary), found.problems
    if registry:
        from regwrap.cli.settings import load

        settings = load(None)
        at_once = replace(settings, retry=replace(settings.retry, outage=0))  # a person waits, and may have mistyped it
        text, listing = list_of_registry(registry, at_once, quiet=quiet)
        return text, listing.notes, listing.unread
    return FIRST_LIST, (), ()


def _refuse_overwriting(directory: Path, *, makes_list: bool) -> None:
    there = [
        directory / name for name in (CONFIGURATION, *([LIST] if makes_list else [])) if (directory / name).exists()
    ]
    if there:
        names = " and ".join(map(str, there))
        raise UsageError(f"{names}: already exists, nothing was written", hint="--force overwrites")


def _answer(option: str, given: str | None, question: str, *, asks: bool) -> str:
    """What an option says, or the user. An empty answer means the default."""
    if given is not None or not asks:
        return _checked(given or "", option)
    return str(typer.prompt(question, default="", show_default=False, err=True, value_proc=_proof(option)))


def _as_directory(archive: str) -> str:
    """A plain word is a directory of that name: no registry is called so."""
    is_word = archive and archive != "localhost" and not set(archive) & set(".:/~")
    return f"./{archive}" if is_word else archive


def _proof(option: str) -> Callable[[str], str]:
    def checked(text: str) -> str:
        try:
            return _checked(text.strip(), option)
        except UsageError as error:
            raise typer.BadParameter(error.message) from error

    return checked


def _checked(text: str, option: str) -> str:
    try:
        if text and not is_directory(text):
            parse_url(text)
    except UsageError as error:
        raise UsageError(
            f"{option}: {error.message}", hint="give HOST[:PORT], or a directory with ./ in front"
        ) from error
    return text


def _written(path: Path, text: str, *, force: bool) -> str:
    try:
        with named_on_error(path.open("w" if force else "x", encoding="utf-8")) as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path}: already exists", hint="--force overwrites") from error
    return f"{path}"
