"""Repair by the real par2: what is damaged or missing comes back, and what is not right does not count."""

import random
from hashlib import md5
from pathlib import Path

import pytest

from regwrap.bundle.output import parity_path
from regwrap.commands.repair import add_parity, repair_bundle
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT
from regwrap.tools.par2 import Par2, named_files
from regwrap.tools.runner import Runner
from tests.builders import flip, make_image, make_layer, make_storage, snapshot
from tests.bundles import make_bundle
from tests.unit.bundle.test_volumes import volumes_of, write

pytestmark = pytest.mark.tools("par2")
IMAGES = {"app:1": make_image("app", layers=[random.Random(1).randbytes(150_000), make_layer("a")])}


@pytest.fixture
def par2(real_runner: Runner) -> Par2:
    return Par2(real_runner, stall=60)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    write(make_storage(tmp_path / "archive", IMAGES), tmp_path / "media/v1.tar", *IMAGES)
    return tmp_path / "media/v1.tar"


def test_damaged_and_missing_volumes_come_back(par2: Par2, bundle: Path) -> None:
    add_parity(par2, bundle, 40)
    files = {path: path.read_bytes() for path in bundle.parent.iterdir()}
    assert repair_bundle(par2, bundle, SILENT).repaired == ()
    flip(bundle.with_name("v1.tar.002"))
    bundle.with_name("v1.tar.003").unlink()
    assert repair_bundle(par2, bundle, SILENT).repaired == ("v1.tar.002", "v1.tar.003")
    assert {path: path.read_bytes() for path in bundle.parent.iterdir()} == files


def test_too_much_damage_is_told_and_recovery_data_of_another_bundle_is_not_taken(par2: Par2, bundle: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        repair_bundle(par2, bundle, SILENT)
    add_parity(par2, bundle, 5)
    for path in volumes_of(bundle)[1:]:
        path.unlink()
    with pytest.raises(IntegrityError, match="can't be repaired: more is damaged"):
        repair_bundle(par2, bundle, SILENT)


@pytest.mark.parametrize("name", [".bashrc", "v1.tar.0001"])
def test_recovery_data_writes_no_other_file(par2: Par2, bundle: Path, name: str) -> None:
    other = bundle.with_name("x" * len(name))
    other.write_bytes(b"foreign" * 1000)
    par2.create(parity_path(bundle), [*volumes_of(bundle), other], 1)
    for path in bundle.parent.glob("*.par2"):
        rename_in(path, other.name.encode(), name.encode())
    other.unlink()
    flip(bundle.with_name("v1.tar.002"))
    before = snapshot(bundle.parent)
    with pytest.raises(IntegrityError, match=r"is of other files than v1\.tar; nothing was changed") as raised:
        repair_bundle(par2, bundle, SILENT)
    assert f"{name!r}"[1:-1] in "".join(raised.value.problems)
    assert snapshot(bundle.parent) == before


def rename_in(path: Path, old: bytes, new: bytes) -> None:
    """Another name in the packets that describe files; their hashes fit."""
    data, position = bytearray(path.read_bytes()), -1
    while (position := data.find(b"PAR2\0PKT", position + 1)) >= 0:
        end = position + int.from_bytes(data[position + 8 : position + 16], "little")
        if data[position + 48 : position + 64] == b"PAR 2.0\0FileDesc" and old in data[position + 120 : end]:
            data[position + 120 : end] = new.ljust(end - position - 120, b"\0")
            data[position + 16 : position + 32] = md5(data[position + 32 : end], usedforsecurity=False).digest()
    path.write_bytes(data)


FRONT = b"PAR2\0PKT" + (126).to_bytes(8, "little") + bytes(32) + b"PAR 2.0\0FileDesc" + bytes(24)


def test_par2_finds_packets_behind_the_beginning_of_another_one(par2: Par2, bundle: Path) -> None:
    """Its hash is wrong; so their names count too."""
    add_parity(par2, bundle, 40)
    files = {path: path.read_bytes() for path in volumes_of(bundle)}
    for path in bundle.parent.glob("*.par2"):
        path.write_bytes(path.read_bytes().replace(b"PAR2\0PKT", FRONT + b"PAR2\0PKT"))
    flip(bundle.with_name("v1.tar.002"))
    assert par2.repair(parity_path(bundle), volumes_of(bundle)) == ""
    assert {path: path.read_bytes() for path in files} == files
    assert set(named_files([parity_path(bundle)])) > {path.name for path in files}


def test_a_name_behind_the_beginning_of_another_packet_is_refused(par2: Par2, bundle: Path) -> None:
    """What is taken for the name there is what the real packet has for the id of its set."""
    add_parity(par2, bundle, 1)
    body = bundle.name.encode().ljust(16, b"\0") + b"PAR 2.0\0FileDesc" + bytes(56) + b".bashrc\0"
    packet = b"PAR2\0PKT" + (32 + len(body)).to_bytes(8, "little") + md5(body, usedforsecurity=False).digest() + body
    bundle.with_name("v1.tar.vol9+1.par2").write_bytes(FRONT + packet)
    with pytest.raises(IntegrityError, match=r"is of other files than v1\.tar; nothing was changed") as raised:
        repair_bundle(par2, bundle, SILENT)
    assert raised.value.problems == ('".bashrc"',)


def test_a_whole_bundle_is_repaired_too(par2: Par2, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, IMAGES).rename(tmp_path / "four.tar")  # a name that fills its packet to the end
    data = bundle.read_bytes()
    add_parity(par2, bundle, 10)
    flip(bundle)
    assert repair_bundle(par2, bundle, SILENT).repaired == ("four.tar",)
    assert bundle.read_bytes() == data
    bundle.with_name("four.tar.sha256").write_text(f"{'0' * 64}  four.tar\n")
    damaged = flipped(bundle)
    with pytest.raises(IntegrityError, match="recovery data is of another bundle") as raised:
        repair_bundle(par2, bundle, SILENT)
    assert raised.value.problems == ("four.tar has another sha256 than four.tar.sha256 says",)
    assert raised.value.hint.endswith("what was there is now four.tar.1")
    assert bundle.with_name("four.tar.1").read_bytes() == damaged


@pytest.mark.parametrize("whole", [True, False])
def test_without_checksums_the_bundle_itself_proves_what_was_repaired(
    par2: Par2, bundle: Path, tmp_path: Path, *, whole: bool
) -> None:
    """Recovery data repairs anything, also what is no bundle, or a damaged one."""
    if whole:
        bundle = make_bundle(tmp_path, IMAGES)
    for path in (bundle.with_name(f"{bundle.name}{end}") for end in (".sha256", ".json")):
        path.unlink(missing_ok=True)
    part = bundle if whole else bundle.with_name("v1.tar.002")
    right, wrong = part.read_bytes(), flipped(part)
    add_parity(par2, bundle, 20)
    part.write_bytes(right)
    with pytest.raises(IntegrityError, match="recovery data is of another bundle") as raised:
        repair_bundle(par2, bundle, SILENT)
    assert part.read_bytes() == wrong
    assert raised.value.problems
    part.write_bytes(right)
    part.with_name(f"{part.name}.1").unlink()
    add_parity(par2, bundle, 20)
    flip(part)
    assert repair_bundle(par2, bundle, SILENT).repaired == (part.name,)


def test_repair_removes_what_par2_has_kept_in_this_run_and_nothing_else(par2: Par2, bundle: Path) -> None:
    add_parity(par2, bundle, 40)
    for name in ("v1.tar.001.1", "v1.tar.002.1", "v1.tar.old", "v1.tar.002.1.1"):
        bundle.with_name(name).write_text("mine")
    files = {path: path.read_bytes() for path in bundle.parent.iterdir()}
    repair_bundle(par2, bundle, SILENT)
    flip(bundle.with_name("v1.tar.002"))
    repair_bundle(par2, bundle, SILENT)
    assert {path: path.read_bytes() for path in bundle.parent.iterdir()} == files


def flipped(path: Path) -> bytes:
    flip(path)
    return path.read_bytes()
