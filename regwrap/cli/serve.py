"""The command serve."""

import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from regwrap.bundle.opened import opened_contents
from regwrap.cli.options import (
    BaseOption,
    ConfigOption,
    ImageSetArgument,
    QuietOption,
    SignatureOption,
    SignersOption,
    VerboseOption,
    VerifyOption,
    VolumesFromOption,
)
from regwrap.cli.output import echo
from regwrap.cli.serve_page import front_page
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.cli.signing import trusting
from regwrap.core.counts import counted
from regwrap.core.errors import Interrupted
from regwrap.registry.server import ServeOptions, check_listening, served_contents
from regwrap.registry.server_access import check_exposure, parse_address, read_certificate, read_htpasswd


def serve(
    source: ImageSetArgument,
    addr: Annotated[
        str, typer.Option("--addr", metavar="HOST:PORT", help="Address to listen on; port 0 picks a free port.")
    ] = "127.0.0.1:5000",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.")] = None,
    htpasswd: Annotated[
        Path | None, typer.Option("--htpasswd", metavar="FILE", help="Who may pull, with bcrypt hashes (htpasswd -B).")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Other machines may pull without TLS and password.")
    ] = False,
    base: BaseOption = None,
    signers: SignersOption = None,
    signature: SignatureOption = None,
    verified: VerifyOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the images, serve nothing.")
    ] = False,
    volumes_from: VolumesFromOption = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    host, port = parse_address(addr)
    tls, login = read_certificate(tls_cert, tls_key), read_htpasswd(htpasswd) if htpasswd else None
    if not insecure:
        check_exposure(host, tls=tls is not None, login=login is not None)
    with opened_session(quiet=quiet) as session, ExitStack() as stack:
        known = load(config).signers
        trust = stack.enter_context(trusting(source, signers, signature, session.progress, configured=known))
        contents = stack.enter_context(
            opened_contents(source, hashed=verified, listener=session.progress, bases=base or (), trust=trust)
        )
        options = ServeOptions(host=host, port=port, tls=tls, login=login)
        if dry_run:
            check_listening(contents, options)
            names = [f"{name}:{tag}" for name in contents.repositories() for tag in contents.tags(name)]
            echo("\n".join([*names, f"would serve {counted(len(names), 'image')} at {addr}"]))
            return
        log = session.progress.line if verbose else lambda _line: None
        page = front_page(source, contents)
        served = stack.enter_context(served_contents(contents, options, log=log, page=page))
        try:
            typer.echo(served.url)
            sys.stdout.flush()
            threading.Event().wait()
        except Interrupted:
            session.progress.log("stopped")
