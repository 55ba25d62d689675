"""A bucket on loopback: `rclone serve s3` behind a proxy that counts.

`python -m tests.bucket COMMAND...` runs a command with one, as examples/object-storage/run.sh wants it told, and says
what the bucket was asked for.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.faultserver import FaultProxy, faulty_proxy
from tests.registry import host_in

_KEY: Final = ("tests", "not-a-secret")
_LISTENING: Final = re.compile(rb"Starting s3 server on \[http://(127\.0\.0\.1:\d+)/\]")
_LISTS: Final = re.compile(rb"</List(?:MultipartUploads|Parts)Result>$")


@dataclass(frozen=True)
class Bucket:
    """`root` is the directory whose files are its objects."""

    root: Path
    proxy: FaultProxy

    @property
    def settings(self) -> dict[str, str]:
        """What examples/object-storage/run.sh and AWS's tools read."""
        key, secret = _KEY
        place = {"S3_ENDPOINT": f"http://{self.proxy.host}", "S3_BUCKET": self.root.name}
        return {**place, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


@contextmanager
def served_bucket(scratch: Path) -> Iterator[Bucket]:
    """An empty bucket, for the block."""
    root, log = scratch / "buckets/archive", scratch / "bucket.log"
    root.mkdir(parents=True)
    with log.open("wb") as output, _started(scratch, output.fileno()) as process:
        try:
            with faulty_proxy(host_in(log, _LISTENING, process)) as proxy:
                proxy.changed = _complete
                yield Bucket(root, proxy)
        finally:
            process.kill()


def _started(scratch: Path, output: int) -> "subprocess.Popen[bytes]":
    environment = {"PATH": program_path(), "HOME": f"{scratch}", "RCLONE_AUTH_KEY": f'"{",".join(_KEY)}"'}
    command = ["rclone", "serve", "s3", "--addr", "127.0.0.1:0", f"{scratch / 'buckets'}"]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def program_path() -> str:
    """The search path with the programs that pip has installed beside this Python."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


def _complete(body: bytes) -> bytes:
    """rclone leaves out of these lists whether there is more, which S3 never does, and docker-registry's driver reads
    without a look whether it is there: it panics at each upload."""
    return _LISTS.sub(lambda end: b"<IsTruncated>false</IsTruncated>" + end[0], body)


def _asked(proxy: FaultProxy) -> str:
    clients = ", ".join(f"{count} by {name}" for name, count in sorted(proxy.agents.items()))
    objects = sum(count for path, count in proxy.sent.items() if "list-type=" not in path)
    return f"the bucket: {len(proxy.requests)} requests ({clients}); {objects} bytes of objects read"


def main(command: list[str], inherited: Mapping[str, str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with TemporaryDirectory(prefix="bucket-") as scratch, served_bucket(Path(scratch)) as bucket:
        environment = {**inherited, **bucket.settings, "PATH": program_path()}
        done = subprocess.run(command, env=environment, check=False)
        sys.stdout.write(f"\n{_asked(bucket.proxy)}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
