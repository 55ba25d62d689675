"""The command doctor."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import typer

from regwrap.cli.cluster import Cluster, ClusterOption, InsecureClusterOption
from regwrap.cli.options import ArchiveOption, ConfigOption, JsonOption
from regwrap.cli.output import show
from regwrap.cli.session import Session, opened_session
from regwrap.cli.settings import load
from regwrap.commands.doctor import DoctorDirectories, DoctorReport, examine_machine
from regwrap.commands.doctor_registries import RegistryHealth, examine_registries
from regwrap.config.load import Config
from regwrap.config.skopeo_files import look_outside
from regwrap.core.errors import ExitCode
from regwrap.core.location import Registry
from regwrap.registry.probe import Probe
from regwrap.report import text as report
from regwrap.tools.helpers import Helpers

_SECONDS: Final = 10.0


def doctor(
    archive: ArchiveOption = None,
    cluster: ClusterOption = None,
    insecure_cluster: InsecureClusterOption = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    settings = load(config, None, archive)
    with opened_session(quiet=True) as session:
        result = examined(session, settings)
        if cluster is not None:
            from regwrap.cli.doctor_cluster import examined_workers

            workers = examined_workers(session, settings, Cluster(cluster, insecure_cluster, config))
            result = replace(result, workers=workers)
    show(result, report.doctor_text(result), json=json)
    if not result.ok:
        raise typer.Exit(ExitCode.TOOL)


def examined(session: Session, settings: Config) -> DoctorReport:
    """This machine, with this configuration."""
    places = DoctorDirectories(
        archive=settings.archive.storage,
        uppers=(settings.scratch,) if settings.scratch else (Path.cwd(), session.scratch.parent),
        scratch=session.scratch,
    )
    outside = look_outside(settings.environment, settings.default_authfile, home=Path.home(), etc=Path("/etc"))
    machine = examine_machine(session.runner, places, outside)
    return replace(machine, registries=checked_registries(session, settings))


def checked_registries(session: Session, settings: Config) -> tuple[RegistryHealth, ...]:
    """Those that are configured: each is asked what it takes."""
    seconds = min(_SECONDS, settings.timeouts.request)
    helpers = Helpers(session.runner, settings.helper_environment, session.scratch / "helpers", seconds)

    def probe_of(registry: Registry) -> Probe:
        return Probe(
            registry=registry,
            timeout=seconds,
            connections=1,
            environment=settings.environment,
            ask_helper=helpers.known,
        )

    return examine_registries(settings.registries, probe_of, datetime.now(UTC), settings.jobs)
