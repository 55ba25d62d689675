"""What the configuration of skopeo and docker means for registries outside, as doctor tells it."""

import json
from pathlib import Path

from regwrap.config.skopeo_files import Finding, look_outside
from tests.builders import put


def found_by(tmp_path: Path, authfile: Path | None = None, **environment: str) -> dict[str, Finding]:
    found = look_outside(tuple(environment.items()), authfile, home=tmp_path / "home", etc=tmp_path / "etc")
    return {finding.what.replace(f"{tmp_path}/", ""): finding for finding in found}


def test_nothing_is_told_where_nothing_is(tmp_path: Path) -> None:
    assert not found_by(tmp_path)


def test_proxies_count_and_their_passwords_are_not_shown(tmp_path: Path) -> None:
    found = found_by(
        tmp_path, HTTPS_PROXY="http://user:secret@proxy:3128", NO_PROXY="127.0.0.1", SSL_CERT_FILE="/ca.pem"
    )
    assert [(name, finding.counts) for name, finding in found.items()] == [
        ("$HTTPS_PROXY", True),
        ("$NO_PROXY", True),
        ("$SSL_CERT_FILE", True),
    ]
    assert "secret" not in f"{found}"


def test_the_first_authfile_counts_and_names_its_hosts_and_helpers_but_no_secret(tmp_path: Path) -> None:
    document = {"auths": {"r.example": {"auth": "c2VjcmV0"}}, "credHelpers": {"cloud.example": "cloud"}}
    first = put(tmp_path / "home/.config/containers/auth.json", json.dumps(document).encode())
    put(tmp_path / "home/.docker/config.json", b"{}")

    found = found_by(tmp_path, first)

    assert found["home/.config/containers/auth.json"].means == "credentials for r.example"
    assert "cloud.example" in found["credential helpers in home/.config/containers/auth.json"].means
    assert not found["home/.docker/config.json"].counts
    assert "authfile" in found["home/.docker/config.json"].instead
    assert "c2VjcmV0" not in f"{found}"


def test_each_part_of_registries_conf_has_no_effect_and_names_what_has(tmp_path: Path) -> None:
    put(
        tmp_path / "home/.config/containers/registries.conf",
        b'unqualified-search-registries = ["docker.io"]\n'
        b'[[registry]]\nprefix = "docker.io"\nlocation = "mirror.example"\ninsecure = true\n'
        b'[[registry.mirror]]\nlocation = "near.example"\n',
    )
    put(tmp_path / "etc/containers/registries.conf.d/b.conf", b'[[registry]]\nlocation = "r.example"\nblocked = true\n')

    found = found_by(tmp_path)

    user = "home/.config/containers/registries.conf"
    assert {name: finding.counts for name, finding in found.items()} == dict.fromkeys(
        (
            f"location of docker.io in {user}",
            f"mirror of docker.io in {user}",
            f"insecure of docker.io in {user}",
            f"search registries in {user}",
            "blocked of r.example in etc/containers/registries.conf.d/b.conf",
        ),
        False,
    )
    assert found[f"insecure of docker.io in {user}"].instead == "regwrap.yaml: tls_verify: false"


def test_an_entry_of_the_machine_for_one_repository_counts(tmp_path: Path) -> None:
    entry = b'[[registry]]\nprefix = "r.example/team/app"\nlocation = "m.example/app"\n'
    put(tmp_path / "etc/containers/registries.conf.d/a.conf", entry)
    put(tmp_path / "home/.config/containers/registries.conf.d/a.conf", entry)
    found = found_by(tmp_path)
    assert found["location of r.example/team/app in etc/containers/registries.conf.d/a.conf"].counts
    assert not found["location of r.example/team/app in home/.config/containers/registries.conf.d/a.conf"].counts


def test_a_broken_registries_conf_is_no_obstacle(tmp_path: Path) -> None:
    put(tmp_path / "etc/containers/registries.conf", b"[[registry\n")
    assert "does not need it" in found_by(tmp_path)["etc/containers/registries.conf"].means


def test_certificates_and_policies_are_told(tmp_path: Path) -> None:
    put(tmp_path / "etc/docker/certs.d/r.example:5000/ca.crt", b"")
    put(tmp_path / "home/.config/containers/certs.d/r.example/ca.crt", b"")
    put(tmp_path / "etc/containers/policy.json", b'{"default": [{"type": "reject"}]}')
    put(tmp_path / "home/.config/containers/policy.json", b'{"default": [{"type": "insecureAcceptAnything"}]}')

    found = found_by(tmp_path)

    assert {name: finding.counts for name, finding in found.items()} == {
        "etc/docker/certs.d/r.example:5000": True,
        "home/.config/containers/certs.d/r.example": False,
        "etc/containers/policy.json": False,
    }
    assert "certificates for r.example:5000" in found["etc/docker/certs.d/r.example:5000"].means


def test_a_file_that_no_parser_stands_hides_nothing_and_ends_nothing(tmp_path: Path) -> None:
    deep = put(tmp_path / "home/.docker/config.json", b"[" * 100_000)
    assert deep.exists()
    look_outside((), None, home=tmp_path / "home", etc=tmp_path / "etc")
