"""Working as somebody else: root does what concerns another user's directory as that user.

A thread's ids for files are its own (setfsuid(2)), and with them go the rights of root. So one step can be done as the
owner while the others still read what only root may read.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from regwrap.core.errors import ToolError
from regwrap.core.writing import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_P = ParamSpec("_P")
_R = TypeVar("_R")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who a step is done as."""

    uid: int
    gid: int

    def calls(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            try:
                self.act()
                return call(*args, **kwargs)
            finally:
                _ROOT.act()
        finally:  # an interruption may have come between; there is only one
            _ROOT.act()

    def become(self) -> None:
        with _explained(self):
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)

    def check(self) -> None:
        """Raises ToolError where the kernel doesn't let us, as in a container without CAP_SETUID."""
        with _explained(self):
            if self.calls(_LIBC.setfsuid, -1) != self.uid:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def act(self) -> None:
        """Be him in this thread, as far as files go."""
        _LIBC.setfsgid(self.gid)
        _LIBC.setfsuid(self.uid)


_ROOT: Final = Actor(0, 0)


@contextmanager
def _explained(actor: Actor) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(
            f"cannot work as uid {actor.uid}, who owns the storage: {error.strerror}",
            hint="run regwrap as that user, or with CAP_SETUID and CAP_SETGID; root gives no file away here",
        ) from error


def actor_for(descriptor: int) -> Actor | None:
    """The owner of an open directory, where we are root and he is not. Raises ToolError where we can't be him."""
    if os.geteuid() != 0:
        return None
    status = status_of(descriptor)
    if status.st_uid == 0:
        return None
    with suppress(PermissionError):  # a namespace without the right has no groups of root's either
        os.setgroups([])
    actor = Actor(status.st_uid, status.st_gid)
    actor.check()
    return actor
