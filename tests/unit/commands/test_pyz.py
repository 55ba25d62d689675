"""regwrap as one file, beside a bundle: its bytes depend on nothing but the modules."""

from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest

from regwrap.commands.pyz import add_pyz, pyz_bytes


@pytest.fixture(scope="module")
def archive() -> ZipFile:
    return ZipFile(BytesIO(pyz_bytes()))


@pytest.mark.slow
def test_names_are_sorted_and_nothing_tells_of_the_build(archive: ZipFile) -> None:
    entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.compress_type for entry in entries} == {ZIP_STORED}
    assert not [entry.filename for entry in entries if "__pycache__" in entry.filename]


def test_libraries_come_with_their_licences_and_only_where_they_are_python(archive: ZipFile) -> None:
    names = archive.namelist()
    for library in ("annotated_doc", "pyyaml", "sh", "shellingham", "tenacity", "typer", "urllib3"):
        beside = [name.lower() for name in names if name.lower().startswith(f"{library}-")]
        assert any("licen" in name for name in beside), library
        assert any(name.endswith("/metadata") for name in beside), library
    assert "regwrap/report/page.css" in names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.slow
def test_the_bundles_checksums_get_its_line_and_another_one_that_lay_there_is_noticed(tmp_path: Path) -> None:
    bundle, tool = tmp_path / "r.tar", tmp_path / "regwrap.pyz"
    checksums = tmp_path / "r.tar.sha256"
    line = f"{'0' * 64}  r.tar\n"
    for before, was_other in ((None, False), (b"of another version", True), (pyz_bytes(), False)):
        checksums.write_text(line)
        if before is not None:
            tool.write_bytes(before)
        assert add_pyz(bundle).was_other == was_other
        assert checksums.read_text() == line + (tmp_path / "regwrap.pyz.sha256").read_text()
    assert tool.stat().st_mode & 0o777 == 0o755
