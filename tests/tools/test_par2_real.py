"""Repair by the real par2: what is damaged or missing comes back, and what is not right does not count."""

import random
from hashlib import md5
from pathlib import Path

import pytest

from regwrap.bundle.output import parity_path
from regwrap.commands.repair import add_parity, repair_bundle
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.tools.par2 import Par2
from regwrap.tools.runner import Runner
from tests.builders import flip, make_image, make_layer, make_storage, snapshot
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
    assert repair_bundle(par2, bundle).repaired == ()
    flip(bundle.with_name("v1.tar.002"))
    bundle.with_name("v1.tar.003").unlink()
    assert repair_bundle(par2, bundle).repaired == ("v1.tar.002", "v1.tar.003")
    assert {path: path.read_bytes() for path in bundle.parent.iterdir()} == files


def test_too_much_damage_is_told_and_recovery_data_of_another_bundle_is_not_taken(par2: Par2, bundle: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        repair_bundle(par2, bundle)
    add_parity(par2, bundle, 5)
    for path in volumes_of(bundle)[1:]:
        path.unlink()
    with pytest.raises(IntegrityError, match="can't be repaired: more is damaged"):
        repair_bundle(par2, bundle)


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
        repair_bundle(par2, bundle)
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


def test_a_whole_bundle_is_repaired_too(par2: Par2, tmp_path: Path) -> None:
    bundle = tmp_path / "four.tar"  # a name that fills its packet to the end
    data = random.Random(2).randbytes(200_000)
    bundle.write_bytes(data)
    add_parity(par2, bundle, 10)
    flip(bundle)
    assert repair_bundle(par2, bundle).repaired == ("four.tar",)
    assert bundle.read_bytes() == data
    bundle.with_name("four.tar.sha256").write_text(f"{'0' * 64}  four.tar\n")
    flip(bundle)
    with pytest.raises(IntegrityError, match="recovery data is of another bundle"):
        repair_bundle(par2, bundle)
