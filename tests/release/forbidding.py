"""Run a command with some system calls refused by seccomp, as container engines do: for tests, from the command line.

python -m tests.release.forbidding unshare:EPERM,mount:EPERM -- COMMAND ...
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Final

_NUMBERS: Final = {
    # (linux/arch).h: unistd_64.h, asm-generic/unistd.h
    "x86_64": {"mount": 165, "unshare": 272, "setxattr": 188},
    "aarch64": {"mount": 40, "unshare": 97, "setxattr": 5},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_RET_ERRNO, _RET_ALLOW = 0x0005_0000, 0x7FFF_0000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


def main() -> None:
    rules, separator, *command = sys.argv[1:]
    assert separator == "--"
    forbid([(name, error) for name, _, error in (rule.partition(":") for rule in rules.split(","))])
    os.execvp(command[0], command)


def forbid(rules: list[tuple[str, str]]) -> None:
    """`rules`: names of system calls, each with the error that it gives from now on, here and in all children."""
    numbers = _NUMBERS[platform.machine()]
    steps = [_step(_LOAD, 0, 0, 0)]  # the call's number is the first word of struct seccomp_data
    for name, error in rules:
        steps.append(_step(_JUMP_IF_EQUAL, 0, 1, numbers[name]))
        steps.append(_step(_RETURN, 0, 0, _RET_ERRNO | getattr(errno, error)))
    steps.append(_step(_RETURN, 0, 0, _RET_ALLOW))
    program = ctypes.create_string_buffer(b"".join(steps))
    # struct sock_fprog
    header = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _step(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


if __name__ == "__main__":
    main()
