"""The one way to reach what is in a directory that somebody else may write to: names below it, and no link among them.

Each name is walked from the directory's own descriptor. The kernel does that in one call (openat2(2), Linux 5.6); where
it can't, each part is opened by itself. So whatever is swapped meanwhile, nothing outside is read, written or removed.
Root does each step as the directory's owner: he can trick it only into what he may do anyway.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import struct
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from regwrap.core.errors import UsageError
from regwrap.core.writing import name_file, on_file, status_of
from regwrap.storage.actor import Actor, actor_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_P = ParamSpec("_P")
_R = TypeVar("_R")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_OPENAT2: Final = _LIBC.syscall
_OPENAT2.restype = ctypes.c_long
_OPENAT2.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
# without a word to the interpreter's lock: of what is only a path nothing waits, and threads would wait for the lock
_OPENAT: Final = ctypes.PyDLL(None).openat
_CLOSE: Final = ctypes.PyDLL(None).close
_NUMBER: Final = 547 if os.uname().machine == "alpha" else 437
_HOW_BYTES: Final = 24  # struct open_how
_ENCODING: Final = sys.getfilesystemencoding()
_RESOLVE: Final = 0x04 | 0x08  # RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH
_NOT_THERE: Final = {errno.ENOENT, errno.ENOTDIR}
# an old kernel, and containers whose filter doesn't know the call
_UNKNOWN_CALL: Final = {errno.ENOSYS, errno.EPERM}
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_ENTRY: Final = os.O_PATH | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class LinkedDirectoryError(UsageError):
    """A symbolic link stands where a storage has a directory. Caught by `verify`, which names it."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is a symbolic link; a storage has directories of its own",
            hint="replace the link by the directory that it leads to, and rerun",
        )


@dataclass(slots=True)
class Tree:
    """A directory and what is below it; names are relative to `root`, which may be absent at first.

    `beneath`: whether the kernel walks. Safe to use from several threads.
    """

    root: Path
    beneath: bool = True
    _descriptor: int = -1
    _actor: Actor | None = None
    _hows: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    @property
    def descriptor(self) -> int:
        """Of the directory itself, which is the same one from the first use on. Raises OSError where there is none."""
        if self._descriptor < 0:
            self._be_opened()
        return self._descriptor

    def _be_opened(self) -> None:
        with self._opening:
            if self._descriptor >= 0:
                return
            descriptor = os.open(self.root, os.O_PATH | os.O_DIRECTORY)
            try:
                self._actor = actor_for(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor

    def inner(self, name: str) -> Tree:
        """The directory `name` as a tree: it stays the same one, whatever is put in its place."""
        tree = Tree(self.root / name, self.beneath)
        tree._descriptor, tree._actor = self.open(name, _DIRECTORY), self._actor  # who it is is known once it is open
        return tree

    def as_owner(self, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What `call` returns, called as the directory's owner where we are root and he is not."""
        if self._actor is None or os.geteuid() != 0:
            return call(*args, **kwargs)
        return self._actor.calls(call, *args, **kwargs)

    @property
    def uid(self) -> int:
        """Whose new files are."""
        return os.geteuid() if self._actor is None else self._actor.uid

    def become_owner(self) -> None:
        """Be the directory's owner from now on, for good, where we are root and he is not: uid, gid, and no groups."""
        self._be_opened()  # by root: the directories above may be closed to him
        if self._actor is not None and os.geteuid() == 0:
            self._actor.become()

    def open(self, name: str, flags: int = _FILE, mode: int = 0) -> int:
        """A descriptor, which the caller closes. Raises OSError, and LinkedDirectoryError."""
        base = self._descriptor if self._descriptor >= 0 else self.descriptor
        try:
            if self._actor is None:  # one call less, for each of hundreds of thousands of files
                return self._walk(base, name, flags, mode)
            return self.as_owner(self._walk, base, name, flags, mode)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                self._refuse_link(name, last=bool(flags & os.O_DIRECTORY))
            raise self._named_error(error, name) from None

    def create(self, name: str) -> int:
        """A descriptor of a new file. Raises FileExistsError where there is anything."""
        return self.open(name, _NEW_FILE, 0o600)

    def stat(self, name: str) -> os.stat_result | None:
        """Of the thing itself, a link too; None where there is nothing."""
        try:
            if "/" not in name:
                return self.as_owner(os.stat, name, dir_fd=self.descriptor, follow_symlinks=False)
            descriptor = self.open(name, _ENTRY)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise
        try:
            return os.fstat(descriptor)
        except OSError as error:
            name_file(error, descriptor)
            raise
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None for anything else."""
        status = self.stat(name)
        return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None

    def is_directory(self, name: str) -> bool:
        status = self.stat(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def entries(self, name: str) -> list[os.DirEntry[str]]:
        """What is in the directory; nothing where there is none. Only ask an entry for its name and what it is."""
        try:
            descriptor = self.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return []
            raise
        try:
            with on_file(descriptor):
                with os.scandir(descriptor) as found:
                    entries = list(found)
                for entry in entries:
                    entry.is_symlink()  # asked now: a file system that doesn't say needs the descriptor for it
            return entries
        finally:
            os.close(descriptor)

    def make_directory(self, name: str, mode: int = 0o700) -> None:
        """Raises FileExistsError where there is anything."""
        self._in_parent(os.mkdir, name, mode)

    def make_directories(self, name: str, mode: int = 0o700) -> None:
        """The directory, and those above it; what is there is fine."""
        try:
            self.make_directory(name, mode)
        except FileExistsError:
            return
        except FileNotFoundError:
            self.make_directories(name.rpartition("/")[0], mode)
            self.make_directories(name, mode)

    def rename(self, name: str, to: Tree, new: str) -> None:
        """To a name of another tree, or of this one. What is there is replaced."""
        old, last = self._parent(name)
        try:
            to._in_parent(lambda new, dir_fd: os.rename(last, new, src_dir_fd=old, dst_dir_fd=dir_fd), new)
        finally:
            self._leave(old)

    def remove_file(self, name: str) -> None:
        self._in_parent(os.unlink, name)

    def remove_directory(self, name: str) -> None:
        self._in_parent(os.rmdir, name)

    def empty_directory(self, name: str, file: str) -> bool:
        """Remove `file` of the directory `name`, then the directory; whether both went. It is the short way for many
        thousands, each of which costs half as much as by the steps above, by which whoever gets False goes on."""
        base = self.descriptor
        if self._actor is not None:
            return False
        directory = _OPENAT(base, name.encode(_ENCODING, "surrogateescape"), _DIRECTORY | os.O_CLOEXEC)
        if directory < 0:
            return False
        try:
            try:
                os.unlink(file, dir_fd=directory)
            finally:
                _CLOSE(directory)  # before the directory goes: the last to close it would wait for the disk
            os.rmdir(name, dir_fd=base)
        except OSError:
            return False
        return True

    def remove_all(self, name: str) -> None:
        """The directory with all that is in it; a link in its place is removed itself. Nothing where there is none."""
        status = self.stat(name)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            self.remove_file(name)
        elif status is not None:
            self._in_parent(shutil.rmtree, name)  # relative to a descriptor it follows no link

    def own(self, descriptor: int, mode: int, uid: int, gid: int) -> None:
        """Give an open file or directory to the owner, which it is by itself where we act as he."""
        with on_file(descriptor):
            if self._actor is None and os.geteuid() == 0:
                os.fchown(descriptor, uid, gid)
            self.as_owner(os.fchmod, descriptor, mode)

    def sync(self) -> None:
        """syncfs(2) of the file system that it is on. Raises OSError where write-back failed."""
        descriptor = self.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), os.fspath(self.root))
        finally:
            os.close(descriptor)

    def shown(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _in_parent(self, call: Callable[..., object], name: str, *args: object) -> None:
        """`call` with the last part of the name, and `dir_fd`: the directory that it is in."""
        above, slash, last = name.rpartition("/")
        parent = self._open_directory(above) if slash else self.descriptor
        try:
            if self._actor is None:
                call(last, *args, dir_fd=parent)
            else:
                self.as_owner(call, last, *args, dir_fd=parent)
        except OSError as error:
            raise self._named_error(error, name) from None
        finally:
            if slash:
                _CLOSE(parent)

    def _open_directory(self, name: str) -> int:
        """The same as `open`, which is asked only where there is something to walk, or to tell."""
        if self._actor is None and self._descriptor >= 0 and "/" not in name and name != "..":
            try:
                return os.open(name, _DIRECTORY, dir_fd=self._descriptor)
            except OSError:
                pass
        return self.open(name, _DIRECTORY)

    def _parent(self, name: str) -> tuple[int, str]:
        above, slash, last = name.rpartition("/")
        return (self._open_directory(above) if slash else self.descriptor), last

    def _leave(self, parent: int) -> None:
        if parent != self._descriptor:
            os.close(parent)

    def _walk(self, base: int, name: str, flags: int, mode: int) -> int:
        if "/" not in name and name != "..":  # there is nothing to walk, and this call costs half
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=base)
        if self.beneath:
            how = self._hows.get((flags, mode))
            if how is None:
                # Python's own calls close theirs for every program by themselves (PEP 446), this one is the kernel's
                how = self._hows[flags, mode] = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE)
            path = name.encode(_ENCODING, "surrogateescape")
            while (descriptor := _OPENAT2(_NUMBER, base, path, how, _HOW_BYTES)) < 0:
                number = ctypes.get_errno()
                if number in _UNKNOWN_CALL:
                    break
                if number not in {errno.EINTR, errno.EAGAIN}:
                    raise OSError(number, os.strerror(number))
            else:
                return int(descriptor)
        return _walk_by_parts(base, name, flags, mode)

    def _refuse_link(self, name: str, *, last: bool) -> None:
        """Raises LinkedDirectoryError where a part of the name that ought to be a directory is a symbolic link; `last`:
        its last part ought to be one, too."""
        parts = name.split("/")
        for depth in range(1, len(parts) + last):
            path = "/".join(parts[:depth])
            try:
                descriptor = self._walk(self.descriptor, path, _ENTRY, 0)
            except OSError:
                return
            mode = status_of(descriptor).st_mode
            os.close(descriptor)
            if stat.S_ISLNK(mode):
                raise LinkedDirectoryError(self.shown(path))

    def _named_error(self, error: OSError, name: str) -> OSError:
        said = error.strerror
        if isinstance(error, PermissionError) and self._actor is not None:
            said = f"{said} for uid {self._actor.uid}, who owns {self.root} (chown -R {self._actor.uid} {self.root})"
        return OSError(error.errno, said, self.shown(name))


def _walk_by_parts(base: int, name: str, flags: int, mode: int) -> int:
    *above, last = name.split("/")
    if ".." in (*above, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))  # as the kernel says it
    with ExitStack() as stack:
        for part in above:
            base = os.open(part, _DIRECTORY, dir_fd=base)
            stack.callback(os.close, base)
        return os.open(last, flags | os.O_NOFOLLOW, mode, dir_fd=base)
