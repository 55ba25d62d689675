"""What doctor prints: a line a command, a line for each thing that is missing, each explained once."""

from dataclasses import replace

from regwrap.commands.doctor import Check, CommandCheck, DoctorReport
from regwrap.config.skopeo_files import Finding
from regwrap.report.text import doctor_text

OVERLAY = ("overlay: no privilege", "skopeo: not installed")
REPORT = DoctorReport(
    commands=(
        CommandCheck(command="list", works=True, optional=False),
        CommandCheck(command="package", works=False, optional=True, missing=OVERLAY, how=("be root", "apt install")),
        CommandCheck(command="sync", works=False, optional=False, missing=OVERLAY[1:], how=("apt install",)),
    ),
    checks=(Check(name="tar", ok=True, found="1.35"), Check(name="skopeo", ok=False, found="not installed")),
    outside=(),
)


def test_each_missing_thing_is_a_line_and_is_explained_once() -> None:
    commands, found, outside = doctor_text(REPORT).split("\n\n")
    assert commands.splitlines() == [
        "COMMAND  HERE   MISSING                HOW TO GET IT",
        "list     works",
        "package  no     overlay: no privilege  be root",
        "                skopeo: not installed  apt install",
        "sync     no     skopeo                 as above",
    ]
    assert found.splitlines() == ["FOUND", "tar     1.35", "skopeo  not installed"]
    assert outside == "No configuration of skopeo or docker was found; regwrap's own applies."


def test_what_is_too_long_for_a_column_stands_below_the_table() -> None:
    lacking = ("overlay: in a mount namespace: forbidden by the kernel", "skopeo: not installed")
    way = "run it with the capability SYS_ADMIN, or work without mounts"
    overlay = CommandCheck(command="package", works=False, optional=True, missing=lacking, how=(way, "apt install"))
    commands = doctor_text(replace(REPORT, commands=(overlay, replace(overlay, command="workspace")))).split("\n\n")[0]
    assert commands.splitlines() == [
        "COMMAND    HERE  MISSING                HOW TO GET IT",
        "package    no    overlay                see below",
        "                 skopeo: not installed  apt install",
        "workspace  no    overlay                as above",
        "                 skopeo                 as above",
        lacking[0],
        f"  -> {way}",
    ]


def test_what_others_are_configured_to_stands_beside_what_counts_instead() -> None:
    proxy = Finding(what="$HTTPS_PROXY", counts=True, means="a proxy", instead="")
    mirror = Finding(what="registries.conf", counts=False, means="a mirror", instead="registries: in regwrap.yaml")
    text = doctor_text(replace(REPORT, outside=(proxy, mirror)))
    assert text.split("\n\n")[2].splitlines() == [
        "FOR REGISTRIES OUTSIDE                    INSTEAD",
        "$HTTPS_PROXY            counts  a proxy",
        "registries.conf         -       a mirror  registries: in regwrap.yaml",
    ]
