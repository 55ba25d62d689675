"""skopeo, hermetic: its flags, its texts, and which of its failures may pass.

What a failure means stands in its text (tools/answers.py): exit codes differ by version. Nothing of the machine's or
the user's configuration reaches it by accident: environment from nothing, a private HOME, its own registries.conf in
which each repository has an entry of its own (a longer prefix wins over /etc/containers/registries.conf.d), an explicit
authfile or none. It never retries by itself: it would only retry what does not matter (containers/image retries few
errors).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.answers import Meaning
from regwrap.core.counts import counted
from regwrap.core.errors import ToolError
from regwrap.core.fields import a_text, json_object, json_value, list_of, or_none
from regwrap.core.fields import field as value_of
from regwrap.core.model import Digest, Platform
from regwrap.core.writing import write_file
from regwrap.tools import answers
from regwrap.tools.answers import Says
from regwrap.tools.authfile import known_login, login_advice
from regwrap.tools.helpers import Helpers
from regwrap.tools.rate_limit import HostLimiters
from regwrap.tools.runner import Command, Runner, RunResult, Tool, last_lines
from regwrap.tools.skopeo_authfile import skopeos_authfile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from regwrap.core.location import Registry, Timeouts
    from regwrap.tools.login_limiter import Trial

_ANY_ENDING: Final = tuple(range(256))
_CONNECTIONS: Final = 6  # that many layers skopeo 1.9 copies at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One image in a registry: by tag or by digest, never by both (skopeo refuses that)."""

    registry: Registry
    repository: str
    reference: str | Digest

    @property
    def url(self) -> str:
        separator = "@" if isinstance(self.reference, Digest) else ":"
        return f"docker://{self.registry.host}/{self.repository}{separator}{self.reference}"

    @property
    def shown(self) -> str:
        return self.url.removeprefix("docker://")


@dataclass(slots=True, kw_only=True, eq=False)
class Skopeo:
    """Starts skopeo. `home` is a private directory of this run; all its skopeos share one blob-info cache there.

    `environment` is what outside registries need (proxies), read from the user's by the caller on purpose, and
    `helper_environment` what credential helpers do. Each start takes a slot of the limiter of each registry it asks.
    """

    runner: Runner
    home: Path
    timeouts: Timeouts
    environment: tuple[tuple[str, str], ...] = ()
    helper_environment: tuple[tuple[str, str], ...] = ()
    limiters: HostLimiters = field(default_factory=HostLimiters)
    helpers: Helpers = field(init=False)

    def __post_init__(self) -> None:
        place, timeout = self.home / "helpers", self.timeouts.request
        self.helpers = Helpers(self.runner, self.helper_environment, place, timeout)

    def manifest(self, remote: Remote) -> bytes | None:
        """The raw manifest; None where the registry has no such image. Raises ToolError."""
        return self._inspected(remote, ())

    def config(self, remote: Remote, platform: Platform | None = None) -> bytes | None:
        """The config of the image that a manifest describes, of an index the one for `platform`, as it is; None where
        it is not there. Raises ToolError."""
        return self._inspected(remote, ("--config",), _chosen(platform) if platform else ())

    def _inspected(self, remote: Remote, what: tuple[str, ...], chosen: tuple[str, ...] = ()) -> bytes | None:
        args = (*chosen, "inspect", "--raw", *what, "--retry-times", "0", *self._side("", remote), "--", remote.url)
        result = self._run((remote,), args, inherit=(), connections=1, seconds=self.timeouts.answer)
        if result.exit_code == 0 and result.stdout.lstrip().startswith(b"<"):
            raise ToolError(f"{remote.shown}: this is a web page, not a manifest", hint=Meaning.LOGIN_PAGE.hint)
        if result.exit_code == 0:
            return result.stdout
        if is_absent(result.stderr):
            return None
        raise self._failure(f"could not read {remote.shown}", result, (remote,))

    def tags(self, registry: Registry, repository: str) -> tuple[str, ...] | None:
        """All tags of a repository; None where the registry has no such repository. Raises ToolError."""
        remote = Remote(registry=registry, repository=repository, reference="")
        args = ("list-tags", "--retry-times", "0", *self._side("", remote), "--", remote.url.removesuffix(":"))
        result = self._run((remote,), args, inherit=(), connections=1)
        if result.exit_code == 0:
            return _tags_in(result.stdout, f"{registry.host}/{repository}")
        if is_absent(result.stderr):
            return None
        raise failure(
            f"could not list the tags of {registry.host}/{repository}",
            fatal_text(result.stderr),
            (remote,),
            self.limiters,
        )

    def copy_to_layout(self, source: Remote, layout: Path, shared_blobs: Path, *, inherit: tuple[int, ...]) -> None:
        """Copy one image into the OCI layout `layout`; blobs whose file is in `shared_blobs` are not fetched again.

        One layout per copy: parallel writers of one layout lose tags with exit 0.
        """
        args = (
            "copy", "--quiet", "--retry-times", "0", "--all", "--preserve-digests",
            *self._side("src-", source),
            "--dest-shared-blob-dir", f"{shared_blobs}",
            "--dest-oci-accept-uncompressed-layers",
            "--", source.url, f"oci:{layout}:image",
        )  # fmt: skip
        result = self._run((source,), args, inherit=inherit)
        if result.exit_code != 0:
            raise self._failure(f"could not copy {source.shown}", result, (source,))

    def copy_one_platform(self, source: Remote, layout: Path, platform: Platform) -> None:
        """Copy one platform's image into the new OCI layout `layout`, under the name `image`, converted to OCI."""
        args = (
            *_chosen(platform),
            "copy", "--quiet", "--retry-times", "0", "--format", "oci",
            *self._side("src-", source),
            "--", source.url, f"oci:{layout}:image",
        )  # fmt: skip
        result = self._run((source,), args, inherit=())
        if result.exit_code != 0:
            raise self._failure(f"could not copy {source.shown}", result, (source,))

    def copy(self, source: Remote, dest: Remote) -> None:
        """Copy with every platform and the digest kept. Raises ToolError. Exit 0 proves nothing: the caller does."""
        args = (
            "copy", "--quiet", "--retry-times", "0", "--all", "--preserve-digests",
            *self._side("src-", source),
            *self._side("dest-", dest),
            "--", source.url, dest.url,
        )  # fmt: skip
        result = self._run((source, dest), args, inherit=())
        if result.exit_code != 0:
            raise failure(
                f"could not copy {source.shown} to {dest.shown}",
                fatal_text(result.stderr),
                (source, dest),
                self.limiters,
            )

    def unpack(self, archive: str, tree: str, *, keep_digests: bool) -> None:
        """Copy the image of an archive into `oci:DIR:NAME` or `dir:DIR`. Raises ToolError.

        docker's archives have layers without compression and no manifest: skopeo makes one, and compresses.
        """
        kept = ("--all", "--preserve-digests") if keep_digests else ()
        result = self._run((), ("copy", "--quiet", *kept, "--", archive, tree), inherit=())
        if result.exit_code != 0:
            said = fatal_text(result.stderr)
            hint = answers.cause_of(said).hint or "is it an archive of that kind, and complete?"
            raise ToolError(f"could not read {archive}", detail=said, hint=hint)

    def _run(
        self,
        remotes: tuple[Remote, ...],
        args: tuple[str, ...],
        *,
        inherit: tuple[int, ...],
        connections: int = _CONNECTIONS,
        seconds: float = 0,
    ) -> RunResult:
        """`seconds` that it may take as a whole, where that is less than a copy's time."""
        seconds = min(seconds or self.timeouts.copy, self.timeouts.copy)
        limit = ("--command-timeout", f"{max(1, seconds):.0f}s")
        command = self._command(remotes, (*limit, *args), inherit)
        command = replace(command, timeout=seconds, stall=self.timeouts.stall, ok_codes=_ANY_ENDING)
        asked = dict.fromkeys((remote.registry, remote.repository) for remote in remotes)
        registries = (registry for registry, _name in asked)
        with self.limiters.trials(asked) as trials, self.limiters.slots(registries, connections) as began:
            result = self.runner.run(command)
            good = result.exit_code == 0 or is_absent(result.stderr)
            said = "" if good else fatal_text(result.stderr)
            record_trials(trials, said)
        self.inform_limiters(remotes, said, began)
        return result

    def sync(self, source: Registry, images: Mapping[str, Sequence[str]], dest: Registry, prefix: str) -> None:
        """Copy tags of repositories to `prefix`/(the last part of their name), one after the other.

        Raises ToolError, with the rest copied; exit 0 proves nothing.
        """
        own = Path(tempfile.mkdtemp(prefix="sync-", dir=self.home))
        settings: dict[str, object] = {"tls-verify": source.tls_verify, "images": images}
        if source.cert_dir:
            settings["cert-dir"] = os.fspath(source.cert_dir)
        write_file(own / "images.yaml", json.dumps({source.host: settings}))  # YAML has JSON in it
        sources = [Remote(registry=source, repository=name, reference="") for name in images]
        names = (f"{prefix}/{name.rpartition('/')[2]}".removeprefix("/") for name in images)
        dests = [Remote(registry=dest, repository=name, reference="") for name in names]
        args = (
            "sync", "--src", "yaml", "--dest", "docker", "--keep-going",
            "--retry-times", "0", "--all", "--preserve-digests",
            *self._side("src-", *sources),
            *self._side("dest-", *dests),
            "--", f"{own}/images.yaml", "/".join(part for part in (dest.host, prefix) if part),
        )  # fmt: skip
        result = self._run((*sources, *dests), args, inherit=())
        if result.exit_code != 0:
            raise failure(
                f"could not sync {counted(len(images), 'repository', 'repositories')} of {source.host}",
                fatal_text(result.stderr),
                (*sources, *dests),
            )

    def _command(self, remotes: tuple[Remote, ...], args: tuple[str, ...], inherit: tuple[int, ...]) -> Command:
        # not a number: a release that syncs twice has two Skopeos with one home
        own = Path(tempfile.mkdtemp(prefix="run-", dir=self.home))
        (own / "registries.d").mkdir()
        conf = own / "registries.conf"
        write_file(conf, _registries_conf(remotes))
        return Command(
            tool=Tool.SKOPEO,
            args=(
                "--insecure-policy",
                "--registries.d", f"{own}/registries.d",
                "--registries-conf", f"{conf}",
                "--tmpdir", f"{own}",
                *args,
            ),
            env=(*self.environment, *self._private_environment(), *self._for_helpers(remotes)),
            inherit=inherit,
        )  # fmt: skip

    def _side(self, side: str, *remotes: Remote) -> tuple[str, ...]:
        """Options for one end of a copy: images of one registry."""
        registry = remotes[0].registry
        authfile = skopeos_authfile(registry, [remote.repository for remote in remotes], self.helpers, self.home)
        return (
            f"--{side}tls-verify={'true' if registry.tls_verify else 'false'}",
            *((f"--{side}authfile", f"{authfile}") if authfile else (f"--{side}no-creds",)),
            *((f"--{side}cert-dir", f"{registry.cert_dir}") if registry.cert_dir else ()),
        )

    def _for_helpers(self, remotes: tuple[Remote, ...]) -> tuple[tuple[str, str], ...]:
        logins = (known_login(remote.registry, remote.repository) for remote in remotes)
        names = sorted({login.helper for login in logins if login and login.helper and not login.is_ours})
        return self.helpers.for_skopeo(names) if names else ()

    def _failure(self, what: str, result: RunResult, remotes: tuple[Remote, ...]) -> ToolError:
        return failure(what, fatal_text(result.stderr), remotes, self.limiters)

    def inform_limiters(self, remotes: tuple[Remote, ...], said: str, started: float) -> None:
        """Tell the hosts' limiters how they answered to what began at `started`: `said` is the failure, or empty."""
        if not said or not remotes:
            for remote in remotes:
                self.limiters.of(remote.registry).answered()
            return
        limiter = self.limiters.of(blamed(said, remotes).registry)
        means = answers.meaning(said)
        if Says.BUSY in means:
            limiter.pushed_back(started, "")
        elif Says.UNREACHABLE in means:
            limiter.unreachable()

    def _private_environment(self) -> tuple[tuple[str, str], ...]:
        # As root containers/image keeps the blob-info cache in /var/lib whatever HOME says, shared with the whole
        # machine and with a lock that can hang. This variable makes it look at XDG_DATA_HOME as for other users;
        # if a later version ignores it, only the privacy of the cache is lost.
        return (
            ("HOME", os.fspath(self.home)),
            ("XDG_DATA_HOME", os.fspath(self.home)),
            ("_CONTAINERS_ROOTLESS_UID", "1000"),
        )


def record_trials(trials: tuple[Trial, ...], said: str) -> None:
    """Whether the logins were accepted: `said` is the failure, or empty. Of several nobody knows which was refused."""
    refused = Says.REFUSED in answers.meaning(said)
    for trial in trials:
        trial.was_accepted = True if not said else (False if refused and len(trials) == 1 else None)


def failure(what: str, said: str, remotes: tuple[Remote, ...], limiters: HostLimiters | None = None) -> ToolError:
    """The ToolError for what skopeo `said` when it failed. `limiters` know which logins were accepted."""
    means, remote = answers.meaning(said), blamed(said, remotes)
    registry, cause = remote.registry, answers.cause_of(said)
    if cause is Meaning.UNAUTHORIZED and limiters is not None and limiters.has_accepted(registry, remote.repository):
        cause = Meaning.SKOPEOS_LOGIN
    if cause is Meaning.OTHER and registry.host.startswith("[") and "invalid reference format" in said:
        cause = Meaning.NO_BRACKETS
    # what to do about a login is known better here
    hint = login_advice(registry, remote.repository) if cause is Meaning.UNAUTHORIZED else cause.hint
    is_transient = Says.TRANSIENT in means
    outage = is_transient and re.search(r"connect|reset|EOF|\b50[234]\b", said) is not None
    return ToolError(
        cause.message(what), detail=said, hint=hint, transient=is_transient, host=registry.host, outage=outage
    )


def blamed(said: str, remotes: tuple[Remote, ...]) -> Remote:
    """Which registry a failure is about: the last that the text names, else the source, whose blobs skopeo reads
    without naming it."""
    return max(remotes, key=lambda remote: said.rfind(remote.registry.host))


def is_absent(stderr: str) -> bool:
    """Whether the image is what is missing."""
    return Says.ABSENT in answers.meaning(stderr)


def fatal_text(stderr: str) -> str:
    """What skopeo gives as the reason: the msg of its last `level=fatal` line, unquoted; else its last lines."""
    for line in reversed(stderr.splitlines()):
        match = re.search(r'level=fatal msg=("(?:[^"\\]|\\.)*")', line)
        if match:
            return _unquoted(match[1])
    return last_lines(stderr)


def _unquoted(text: str) -> str:
    try:
        return a_text(json_value(text))
    except ValueError:  # Go quotes some characters as JSON does not
        return text


def _tags_in(said: bytes, name: str) -> tuple[str, ...]:
    try:
        # Go writes null for a list without items; absent is no answer
        return value_of(json_object(said), "Tags", or_none(list_of(a_text)), absent={}) or ()
    except ValueError as error:
        raise ToolError(f"skopeo listed no tags of {name}", detail=f"{error}") from error


def _chosen(platform: Platform) -> tuple[str, ...]:
    variant = ("--override-variant", platform.variant) if platform.variant else ()
    return ("--override-os", platform.os, "--override-arch", platform.architecture, *variant)


def _registries_conf(remotes: tuple[Remote, ...]) -> str:
    names = sorted({f"{remote.registry.host}/{remote.repository}" for remote in remotes})
    return "".join(f'[[registry]]\nprefix = "{name}"\nlocation = "{name}"\n' for name in names)
