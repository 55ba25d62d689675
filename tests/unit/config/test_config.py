"""What an operator writes into the configuration, and what they are told when it is wrong."""

import dataclasses
from pathlib import Path

import pytest

from regwrap.config.load import Config, Flags, load_config
from regwrap.config.locations import registry_for
from regwrap.core.errors import UsageError
from regwrap.core.location import Engine, Registry
from regwrap.lists.imagelist import Rewrite

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"


def load(tmp_path: Path, text: str | None = None, flags: Flags | None = None, **environ: str) -> Config:
    if text is not None:
        (tmp_path / "regwrap.yaml").write_text(text, encoding="utf-8")
    return load_config(flags or Flags(), environ={"HOME": f"{tmp_path}/home", **environ}, cwd=tmp_path)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/regwrap.yaml") for line in raised.value.problems or (raised.value.message,)]


def test_the_example_is_the_defaults_and_names_every_key(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    from_example = load(tmp_path, text)
    (tmp_path / "regwrap.yaml").unlink()
    assert dataclasses.replace(from_example, path=None) == load(tmp_path)
    for key in ("url", "storage", "authfile", "tls_verify", "cert_dir", "max_connections",
                "requests_per_second", "source", "archive", "jobs", "prefix",
                "keep_host", "attempts", "wait", "max_wait", "outage", "stall", "copy", "request", "lock"):  # fmt: skip
        assert f"{key}: " in text


def test_rules_for_images(tmp_path: Path) -> None:
    text = """
images:
  - match: "r.example/team/*:v1.*"
    semver: ">=1.2 <2"
    newest: 3
    platform: linux/arm64,linux/amd64
  - match: team/api
"""
    first, second = load(tmp_path, text).rules
    assert (first.match.registry, first.match.repository, first.match.tag) == ("r.example", "team/*", "v1.*")
    assert (first.semver.text if first.semver else "", first.newest) == (">=1.2 <2", 3)
    assert [str(platform) for platform in first.platforms] == ["linux/amd64", "linux/arm64"]
    assert (second.match.tag, second.semver, second.newest, second.platforms) == ("*", None, None, ())


def test_every_problem_of_the_rules_is_named(tmp_path: Path) -> None:
    text = """
images:
  - 5
  - {mach: a}
  - {match: a, semver: nonsense}
  - {match: Team/*}
  - {match: a, newest: 0}
  - {match: a, platform: amd64}
"""
    assert [problem.partition(": expected")[0].partition(";")[0] for problem in problems(tmp_path, text)] == [
        ": images[1]",
        ': images[2]: unknown key "mach"',
        ": images[3]: 'nonsense' is not a version, in the range 'nonsense'",
        ": images[4]",
        ": images[5].newest",
        ": images[6].platform",
    ]
    assert problems(tmp_path, "images: {match: a}\n") == [": images: expected a list (- match: …), got a mapping"]


def test_nothing_configured_means_an_embedded_archive(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert config.archive.storage == tmp_path / "home/.local/share/regwrap/archive"
    assert config.source is None
    assert load(tmp_path, XDG_DATA_HOME="/data").archive.storage == Path("/data/regwrap/archive")


def test_the_first_file_found_counts(tmp_path: Path) -> None:
    user = tmp_path / "home/.config/regwrap/config.yaml"
    named = tmp_path / "named.yaml"
    user.parent.mkdir(parents=True)
    user.write_text("jobs: 3\n")
    named.write_text("jobs: 5\n")
    assert load(tmp_path).jobs == 3
    assert load(tmp_path, "jobs: 4\n").jobs == 4
    assert load(tmp_path, REGWRAP_CONFIG="named.yaml").jobs == 5
    assert load(tmp_path, flags=Flags(config=Path("named.yaml")), REGWRAP_CONFIG="absent.yaml").jobs == 5


def test_a_named_file_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml does not exist"):
        load(tmp_path, flags=Flags(config=Path("absent.yaml")))
    with pytest.raises(UsageError, match=r"absent\.yaml does not exist"):
        load(tmp_path, REGWRAP_CONFIG="absent.yaml")


def test_a_file_that_can_t_be_looked_at_is_not_said_to_be_absent(tmp_path: Path) -> None:
    name = "x" * 300
    with pytest.raises(UsageError, match=r"--config: .* cannot be checked: File name too long"):
        load(tmp_path, flags=Flags(config=Path(name)))
    with pytest.raises(UsageError, match=r"authfile: the file .* cannot be checked: File name too long"):
        load(tmp_path, f"registries: {{a: {{url: a.example.com, authfile: {name}}}}}\n")


def test_the_upper_layer_s_directory_is_a_flag_s_a_variable_s_or_the_file_s(tmp_path: Path) -> None:
    assert load(tmp_path, "scratch: file", Flags(upper="flag"), REGWRAP_SCRATCH="variable").scratch == tmp_path / "flag"
    assert load(tmp_path, "scratch: file", REGWRAP_SCRATCH="variable").scratch == tmp_path / "variable"
    assert load(tmp_path, "scratch: file").scratch == tmp_path / "file"


def test_flag_counts_more_than_environment_and_that_more_than_the_file(tmp_path: Path) -> None:
    text = "jobs: 2\narchive: ./file\nsource: file.example\n"
    assert load(tmp_path, text).jobs == 2
    assert load(tmp_path, "engine: copy", REGWRAP_ENGINE="sync").engine is Engine.SYNC
    assert load(tmp_path, "engine: copy", Flags(engine="stream"), REGWRAP_ENGINE="sync").engine is Engine.STREAM
    assert load(tmp_path, "engine: copy").engine is Engine.COPY
    config = load(tmp_path, text, REGWRAP_JOBS="3", REGWRAP_ARCHIVE="./env", REGWRAP_SOURCE="env.example")
    assert (config.jobs, config.archive.storage) == (3, tmp_path / "env")
    assert config.source is not None
    assert config.source.name == "env.example"
    flags = Flags(jobs=4, archive="./flag", source="flag.example")
    config = load(tmp_path, text, flags, REGWRAP_JOBS="3", REGWRAP_ARCHIVE="./env")
    assert (config.jobs, config.archive.storage) == (4, tmp_path / "flag")


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = """
jobs: many
timeout: {}
retry: {attempts: "five", wait: true, max_wait: 9999999}
timeouts: [1]
registries:
  a: {url: "https://host/path"}
  b: {}
  c: {url: host.example, tls_verify: "no", autfile: x}
  d: 5
source: nowhere
"""
    assert problems(tmp_path, text) == [
        ': unknown key "timeout"; did you mean "timeouts"?',
        ': registries.a.url: expected HOST[:PORT] without a path, got "https://host/path"',
        ": registries.b: needs a url or a storage",
        ': registries.c: unknown key "autfile"; did you mean "authfile"?',
        ': registries.c.tls_verify: expected true or false, got "no"',
        ": registries.d: expected a mapping (key: value), got 5",
        ': retry.attempts: expected a whole number from 1 to 20, got "five"',
        ": retry.wait: expected a number of seconds from 0 to 604800, got true",
        ": retry.max_wait: expected a number of seconds from 0 to 604800, got 9999999",
        ": timeouts: expected a mapping (key: value), got a list",
        ': source: "nowhere" is neither a configured registry, nor a host, nor a directory that is there'
        " (./nowhere is a new one); known: a, b, c, d",
        ': jobs: expected a whole number from 1 to 64, got "many"',
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: 1\njobs: 2\n", r':2:1: the key "jobs" stands twice, first in line 1'),
        ("jobs: [1\n", r":\d+:\d+: "),
        ("- a\n", "expected a mapping"),
        ("a: " + "[" * 3000, "too deeply nested"),
        ("jobs: !!python/object:os.system x\n", r":1:7: "),
        ("#" * 1_100_000, "larger than 1024 KiB"),
        ("? [a]\n: b\n", ": "),
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(tmp_path, text)


def test_bytes_that_are_no_text_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "regwrap.yaml").write_bytes(b"jobs: \xff\xfe\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        load(tmp_path)


def test_paths_are_relative_to_the_file_and_home_is_expanded(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/auth.json").write_text("{}")
    (tmp_path / "home/certs").mkdir(parents=True)
    text = "registries: {r: {url: r.example, storage: data, authfile: auth.json, cert_dir: ~/certs}}\nsource: r\n"
    (tmp_path / "conf/c.yaml").write_text(text)
    config = load(tmp_path, flags=Flags(config=Path("conf/c.yaml")))
    assert config.source is config.registries[0]
    assert config.source.storage == tmp_path / "conf/data"
    assert config.source.registry == Registry(
        host="r.example", tls_verify=True, authfile=tmp_path / "conf/auth.json", cert_dir=tmp_path / "home/certs"
    )


def test_an_authfile_that_is_not_there_is_an_error_and_a_storage_is_not(tmp_path: Path) -> None:
    text = "registries: {r: {url: r.example, authfile: a.json, cert_dir: c, storage: new}}\n"
    assert problems(tmp_path, text) == [
        f": registries.r.authfile: the file {tmp_path}/a.json does not exist",
        f": registries.r.cert_dir: the directory {tmp_path}/c does not exist",
    ]


@pytest.mark.parametrize(
    ("url", "verify", "plain"),
    [
        ("r.example", True, False),
        ("https://r.example:5000", True, False),
        ("http://r.example", False, True),
        ("127.0.0.1:5000", False, False),
        ("https://127.0.0.1:5000", True, False),
        ("localhost:5000", False, False),
        ("http://localhost:5000", False, True),
        ("https://localhost:5000", True, False),
        ("127.evil.example", True, False),
    ],
)
def test_a_url_says_how_a_registry_is_reached(tmp_path: Path, url: str, verify: bool, plain: bool) -> None:
    registry = load(tmp_path, f"registries: {{r: {{url: '{url}'}}}}\n").registries[0].registry
    assert registry is not None
    assert (registry.tls_verify, registry.plain_http) == (verify, plain)


def test_immutable_tags_are_those_of_the_archive_and_of_a_registry(tmp_path: Path) -> None:
    text = "archive: kept\nimmutable: ['v*']\nregistries: {kept: {storage: a, immutable: ['app:rc-?']}}"
    archive = load(tmp_path, text).archive
    assert [archive.is_immutable("app", tag) for tag in ("v1.0", "rc-1", "rc-10", "latest")] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not archive.is_immutable("web/app", "rc-1")
    assert not load(tmp_path, "").archive.is_immutable("app", "v1")
    with pytest.raises(UsageError, match=r"immutable: expected a list of patterns for tags"):
        load(tmp_path, "immutable: v*")


def test_rewrite_is_a_path_and_a_switch(tmp_path: Path) -> None:
    assert load(tmp_path, "rewrite: {prefix: a/b/, keep_host: true}\n").rewrite == Rewrite(
        prefix="a/b/", keep_host=True
    )
    assert load(tmp_path, "rewrite:\n").rewrite == Rewrite(prefix="", keep_host=False)


@pytest.mark.parametrize("prefix", ["mirror", "/", "''", "/mirror/", "Mirror/", "a//", "a:1/", "r.io:5000/", "5", "[]"])
def test_prefix_that_makes_no_repository_is_refused(tmp_path: Path, prefix: str) -> None:
    (problem,) = problems(tmp_path, f"rewrite: {{prefix: {prefix}}}\n")
    assert problem.startswith(": rewrite.prefix: expected a path with a slash at its end, such as mirror/, got ")


def test_every_problem_of_a_rewrite_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path, "rewrite: {prefx: a/, keep_host: maybe}\n") == [
        ': rewrite: unknown key "prefx"; did you mean "prefix"?',
        ': rewrite.keep_host: expected true or false, got "maybe"',
    ]


def test_a_host_of_the_list_is_reached_as_configured_or_as_docker_would(tmp_path: Path) -> None:
    config = load(tmp_path, "registries: {r: {url: r.example, tls_verify: false}}\n")
    assert not registry_for(config, "r.example").tls_verify
    assert registry_for(config, "other.example").tls_verify
    assert registry_for(config, "127.0.0.1:5000") == Registry(host="127.0.0.1:5000", tls_verify=False)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("r.example", ["R.Example", "r.example:443", "r.EXAMPLE:443"]),
        ("https://r.example:443", ["r.example", "r.example:443"]),
        ("http://r.example", ["r.example", "r.example:80"]),
        ("http://R.example:80", ["r.example", "r.example:80"]),
        ("https://index.docker.io", ["docker.io", "registry-1.docker.io", "index.docker.io:443"]),
        ("'[FE80::1]:5000'", ["[fe80::1]:5000"]),
    ],
)
def test_a_registry_has_one_name_however_it_is_written(tmp_path: Path, url: str, names: list[str]) -> None:
    config = load(tmp_path, f"registries: {{r: {{url: {url}, requests_per_second: 7}}}}\n")
    assert [registry_for(config, name).requests_per_second for name in names] == [7] * len(names)
    assert registry_for(config, "r.example:8443").requests_per_second is None


def test_name_directory_and_host_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    text = "registries: {cicd: {url: cicd.example}}\n"
    for given, storage, host in (
        ("cicd", None, "cicd.example"),
        ("there", tmp_path / "there", None),
        ("./new", tmp_path / "new", None),
        ("some/dir", tmp_path / "some/dir", None),
        ("host.example:5000", None, "host.example:5000"),
        ("docker://host.example", None, "host.example"),
        ("http://host.example", None, "host.example"),
    ):
        place = load(tmp_path, text, Flags(source=given)).source
        assert place is not None
        assert (place.storage, place.registry and place.registry.host) == (storage, host)
    with pytest.raises(UsageError, match="--source") as raised:
        load(tmp_path, text, Flags(source="cicdd"))
    assert 'did you mean "cicd"?' in raised.value.message


def test_the_authfile_of_skopeo_and_docker_is_the_default_in_their_order(tmp_path: Path) -> None:
    docker = tmp_path / "home/.docker/config.json"
    runtime = tmp_path / "run/containers/auth.json"
    for path in (docker, runtime):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert load(tmp_path).default_authfile == docker
    assert load(tmp_path, XDG_RUNTIME_DIR=f"{tmp_path}/run").default_authfile == runtime
    config = load(tmp_path, XDG_RUNTIME_DIR=f"{tmp_path}/run", REGISTRY_AUTH_FILE=f"{docker}")
    assert registry_for(config, "r.example").authfile == docker


def test_proxies_and_certificates_are_handed_over_and_nothing_else(tmp_path: Path) -> None:
    config = load(tmp_path, https_proxy="http://p:1", NO_PROXY="x.example", SSL_CERT_FILE="/ca", TAR_OPTIONS="-z")
    assert dict(config.environment) == {
        "HTTPS_PROXY": "http://p:1",
        "NO_PROXY": "x.example,127.0.0.1,localhost,::1",
        "SSL_CERT_FILE": "/ca",
    }
    assert load(tmp_path).environment == ()


def test_a_number_of_jobs_in_the_environment_is_checked(tmp_path: Path) -> None:
    for variable, flags, text in (("tar", Flags(), ""), ("", Flags(engine="tar"), ""), ("", Flags(), "engine: tar")):
        with pytest.raises(UsageError, match="expected one of auto, curl, stream, copy, sync, got"):
            load(tmp_path, text, flags, REGWRAP_ENGINE=variable)
    with pytest.raises(UsageError, match="REGWRAP_JOBS: expected a whole number from 1 to 64"):
        load(tmp_path, "", REGWRAP_JOBS="0")


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    lines = problems(tmp_path, "registries: {r: {url: 'https://user:s3cret@h.example'}}\n")
    assert "s3cret" not in "".join(lines)
    assert "credentials are not allowed here" in lines[0]


def test_an_explicit_scheme_on_the_command_line_counts(tmp_path: Path) -> None:
    source = load(tmp_path, flags=Flags(source="https://localhost:5000")).source
    assert source is not None
    assert source.registry == Registry(host="localhost:5000", tls_verify=True)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\njobs: *c\n",
        "jobs: 0x" + "f" * 6000,
        'registries: {r: {storage: "a\\0b"}}\n',
        'source: "\\e[31m"\n',
    ],
)
def test_hostile_values_are_a_short_error_without_control_characters(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as raised:
        load(tmp_path, text)
    lines = raised.value.problems or (raised.value.message,)
    assert sum(map(len, lines)) < 1000
    assert all(line.isprintable() for line in lines)


def test_a_mistake_in_the_file_is_reported_although_a_flag_overrides_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jobs: expected a whole number"):
        load(tmp_path, "jobs: 0\n", Flags(jobs=4))


def test_what_may_be_asked_of_a_registry(tmp_path: Path) -> None:
    text = "registries: {ci: {url: ci.local, max_connections: 4, requests_per_second: 2.5, partial_indexes: true}}\n"
    registry = load(tmp_path, text).registries[0].registry
    assert registry is not None
    assert (registry.max_connections, registry.requests_per_second, registry.partial_indexes) == (4, 2.5, True)
    wrong = "registries: {ci: {url: ci.local, max_connections: 0, requests_per_second: many}}\n"
    assert problems(tmp_path, wrong) == [
        ": registries.ci.max_connections: expected a whole number from 1 to 1000, got 0",
        ': registries.ci.requests_per_second: expected a number from 0.01 to 10000, got "many"',
    ]
