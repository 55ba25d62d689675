#!/usr/bin/env python3
"""Standard input, a pipe, into a file, and to the disk: what a receiver has to do, in the kernel and from the start.

to_disk.py FILE
"""

import ctypes
import os
import sys

_PIECE = 1 << 18  # for more at once the kernel takes longer to find room in a full page cache
_DIRTY = 32 << 20
_START_WRITING = 2  # sync_file_range(2)


def main() -> None:
    libc = ctypes.CDLL(None)
    done = begun = 0
    out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    while count := os.splice(0, out, _PIECE):
        done += count
        if done - begun >= _DIRTY:
            libc.sync_file_range(out, ctypes.c_int64(begun), ctypes.c_int64(done - begun), _START_WRITING)
            begun = done
    os.fsync(out)


if __name__ == "__main__":
    main()
