"""Commands that begin with a bundle: deploy, push, serve, verify, inspect."""

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from regwrap import report
from regwrap.cli.options import (
    ConfigOption,
    HtmlOption,
    JobsOption,
    JsonOption,
    QuietOption,
    StockArgument,
    VerboseOption,
    VerifyOption,
)
from regwrap.cli.outcome import show, show_plan, write_page
from regwrap.cli.session import load, opened_session, unlocked_list
from regwrap.config import push_place
from regwrap.deploy import DeployOptions, deploy_bundle
from regwrap.errors import ExitCode, IntegrityError, Interrupted
from regwrap.examine import inspect_bundle, verify_bundle, verify_storage
from regwrap.page.bundle import bundle_page
from regwrap.pipeline.push import PushOptions, opened_contents, push_images
from regwrap.publish import Naming
from regwrap.serve.access import check_exposure, parse_address, read_certificate, read_htpasswd
from regwrap.serve.server import ServeOptions, served_contents


def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The storage's root directory, in use or new.")],
    replace_tags: Annotated[
        bool, typer.Option("--replace-tags", help="Move tags that are there and point to other images.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the bundle's structure, change nothing.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config)
    with opened_session(quiet=quiet) as session:
        session.progress.expect("deploy", bundle.stat().st_size if bundle.is_file() else 0)
        options = DeployOptions(
            replace_tags=replace_tags,
            dry_run=dry_run,
            lock_timeout=settings.timeouts.lock,
            on_wait=session.progress.say,
            on_bytes=session.progress.on_bytes,
        )
        result = deploy_bundle(bundle, directory, options)
        if not dry_run:
            session.progress.say(
                "a registry that runs on this directory serves the new tags at once; if it keeps an in-memory blob"
                " cache (docker-registry's packaged configuration does), restart it after blobs were mended"
            )
    show(result, report.deploy_text(result, directory, dry_run=dry_run), json=json)


def push(
    source: StockArgument,
    dest: Annotated[str, typer.Argument(metavar="NAME|HOST[:PORT][/PREFIX]", help="The registry, and where in it.")],
    flat: Annotated[bool, typer.Option("--flat", help="Keep only the last part of each name.")] = False,
    create_projects: Annotated[
        bool, typer.Option("--create-projects", help="Create what projects are missing in Harbor, as private ones.")
    ] = False,
    verified: VerifyOption = False,
    jobs: JobsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and why.")] = False,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    json: JsonOption = False,
) -> None:
    settings = load(config, None, None, jobs)
    registry, prefix = push_place(dest, settings)
    naming = Naming(prefix=prefix, flat=flat)
    options = PushOptions(naming=naming, create_projects=create_projects, hashed=verified, dry_run=dry_run)
    with opened_session(quiet=quiet, verbose=verbose, stopping=settings.retry.stopping) as session:
        result = push_images(session.job(settings), source, registry, options)
    if result.report is None:
        raise show_plan(result.plan, json=json)
    if result.report.failed:
        typer.echo(report.failures_text(result.report), err=True)
    show(result.report, report.sync_text(result.report), json=json)
    if result.report.failed:
        raise typer.Exit(ExitCode.IMAGES_FAILED)


def serve(
    source: StockArgument,
    addr: Annotated[
        str, typer.Option("--addr", metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:5000",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.")] = None,
    htpasswd: Annotated[
        Path | None, typer.Option("--htpasswd", metavar="FILE", help="Who may pull, with bcrypt hashes (htpasswd -B).")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Other machines may pull without TLS and password.")
    ] = False,
    verified: VerifyOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    host, port = parse_address(addr)
    tls, login = read_certificate(tls_cert, tls_key), read_htpasswd(htpasswd) if htpasswd else None
    if not insecure:
        check_exposure(host, tls=tls is not None, login=login is not None)
    with opened_session(quiet=quiet) as session, ExitStack() as stack:
        contents = stack.enter_context(opened_contents(source, session.listener(), hashed=verified))
        log = session.progress.line if verbose else lambda _line: None
        options = ServeOptions(host=host, port=port, tls=tls, login=login, log=log)
        served = stack.enter_context(served_contents(contents, options))
        try:
            typer.echo(served.url)
            sys.stdout.flush()
            threading.Event().wait()
        except Interrupted:
            session.progress.say("stopped")


def verify(
    target: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR|DIR", help="A bundle, or a storage's root directory.")],
    images_list: Annotated[
        str | None, typer.Option("--list", metavar="IMAGES.LIST", help="It must hold exactly these images.")
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    with opened_session(quiet=quiet) as session:
        entries = None
        if images_list is not None:  # only its rewrite: and images: count here
            entries = unlocked_list(images_list, load(config), session.progress).entries
        session.progress.expect("verify", _bytes_of(target))
        check = verify_storage if target.is_dir() else verify_bundle
        result = check(target, entries, session.progress.on_bytes)
        for note in result.notes:
            session.progress.say(f"note: {note}")
    show(result, report.verify_text(result), json=json)
    if result.problems:
        raise IntegrityError(f"{target}: {len(result.problems)} problems")


def _bytes_of(target: Path) -> int:
    return target.stat().st_size if target.is_file() else 0


def inspect(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE.TAR", help="The bundle.")],
    html: HtmlOption = None,
    json: JsonOption = False,
) -> None:
    result = inspect_bundle(bundle)
    if html:
        write_page(html, bundle, bundle_page(result))
    show(result, report.inspect_text(result), json=json)
