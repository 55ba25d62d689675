"""`--cluster`: a scheduler and three workers of Dask, of which one is killed in the middle."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from regwrap.core.model import Digest
from regwrap.storage.store import Storage
from tests.builders import Image, make_image, make_layer, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.dask import DaskCluster, DaskHost, dask_cluster, started_dask_host
from tests.faultserver import Fault, FaultProxy, faulty_proxy
from tests.release.conftest import Scene
from tests.release.regwrap_cli import Cli
from tests.tls import make_certificate

pytestmark = pytest.mark.tools


@pytest.fixture(scope="session")
def dask_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskHost]:
    with started_dask_host(tmp_path_factory.mktemp("dask")) as host:
        yield host


@pytest.fixture
def cluster(dask_host: DaskHost, tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(dask_host, tmp_path / "cluster") as cluster:
        yield cluster


def shared_images(count: int, size: int) -> dict[str, Image]:
    """Large and small ones that share a layer."""
    random = Random(5)
    base = make_layer("base", random.randbytes(size))
    return {
        f"team/app{number}:1": make_image(
            f"app{number}", layers=[base, make_layer(f"own{number}", random.randbytes(size // (1 + 4 * (number % 2))))]
        )
        for number in range(count)
    }


def unique_bytes(images: dict[str, Image]) -> int:
    return sum({Digest.of(blob): len(blob) for image in images.values() for blob in image.blobs}.values())


def waited_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def busy_worker(cluster: DaskCluster) -> str | None:
    """One that has a curl at work now."""
    parents = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = stat.read_text().partition(") ")
            if name.endswith("(curl"):
                parents.add(int(rest.split()[1]))
    return next((name for name, pid in cluster.workers.items() if pid in parents), None)


@dataclass
class Farm:
    """A source that is slow enough to be disturbed, a cluster, and the command line."""

    cli: Cli
    cluster: DaskCluster
    images: dict[str, Image]
    source: FaultProxy

    @property
    def archive(self) -> Path:
        return self.cli.directory / "archive"

    def sync(self, *more: str) -> "subprocess.CompletedProcess[str]":
        return self.cli(*self.words(*more))

    def words(self, *more: str) -> list[str]:
        words = ["sync", "images.list", "--source", self.source.host, "--dest", "./archive", "-j", "2"]
        return [*words, "--cluster", self.cluster.address, *more]

    @property
    def sent(self) -> int:
        return sum(count for path, count in self.source.sent.items() if "/blobs/" in path)

    def holds_all(self) -> bool:
        tags = {f"{name}": Storage(self.archive).resolve(*name.split(":")) for name in self.images}
        return not storage_problems(self.archive) and tags == {name: image.top for name, image in self.images.items()}


@pytest.fixture
def farm(cli: Cli, cluster: DaskCluster, tmp_path: Path, loopback_registry: StartRegistry) -> Iterator[Farm]:
    images = shared_images(8, 1_000_000)
    root = make_storage(tmp_path / "ci", images)
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    with faulty_proxy(loopback_registry(root).host) as source:
        yield Farm(cli, cluster, images, source)


def test_each_byte_is_sent_once_and_the_report_has_each_worker(farm: Farm) -> None:
    ended = farm.sync("--report", "report.json", "--junit", "junit.xml")
    assert ended.returncode == 0, ended.stderr
    assert farm.holds_all()
    assert farm.sent == unique_bytes(farm.images)
    assert not (farm.archive / ".regwrap/sync").exists()
    report = json.loads((farm.cli.directory / "report.json").read_text())
    assert sum(worker["bytes_sent"] for worker in report["workers"]) == report["totals"]["bytes_sent"] == farm.sent
    assert {worker["worker"] for worker in report["workers"]} <= {"w0", "w1", "w2"}
    assert 'tests="8"' in (farm.cli.directory / "junit.xml").read_text()
    again = farm.sync()
    assert again.stdout.startswith("0 copied, 8 already there")
    assert farm.sent == unique_bytes(farm.images)


def test_what_a_killed_worker_had_begun_runs_elsewhere(farm: Farm) -> None:
    farm.source.rate = 400_000
    run = farm.cli.start(*farm.words())
    waited_for(lambda: farm.sent > 1_000_000 and busy_worker(farm.cluster) is not None, "nothing came")
    busy = busy_worker(farm.cluster)
    assert busy
    farm.cluster.kill(busy)
    farm.source.rate = 0
    out, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    assert out.startswith("8 copied, 0 already there, 0 failed")
    assert farm.holds_all()
    # what was in the pipes of the killed curls came twice, and what it had written did not
    assert unique_bytes(farm.images) <= farm.sent < 1.5 * unique_bytes(farm.images)
    assert not (farm.archive / ".regwrap/sync").exists()


WITHOUT_DASK = (
    "import sys; sys.modules['dask'] = sys.modules['distributed'] = None; import regwrap.__main__ as m; m.main()"
)


def test_nothing_of_dask_is_needed_without_a_cluster(scene: Scene) -> None:
    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", WITHOUT_DASK, "sync", "images.list", "--source", scene.host, *words]
        surroundings = {**scene.cli.environment, "PYTHONPATH": f"{Path.cwd()}"}
        return subprocess.run(
            command, cwd=scene.directory, env=surroundings, capture_output=True, text=True, timeout=100, check=False
        )

    without = run()
    assert (without.returncode, without.stdout[:9]) == (0, "8 copied,")
    asked = run("--cluster", "local:2")
    assert asked.returncode == 2
    assert "--cluster needs Dask, which is not installed" in asked.stderr
    assert "pip install 'regwrap[cluster]'" in asked.stderr


def test_a_scheduler_elsewhere_has_to_be_reached_by_tls(scene: Scene) -> None:
    ended = scene.cli("sync", "images.list", "--source", scene.host, "--cluster", "tcp://192.0.2.1:8786")
    assert ended.returncode == 2
    assert "runs programs on all workers, with their logins" in ended.stderr
    assert "--insecure-cluster" in ended.stderr
    assert "is no cluster" in scene.cli("sync", "images.list", "--cluster", "192.0.2.1").stderr


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_no_scheduler_is_said_in_three_parts(scene: Scene) -> None:
    ended = scene.cli("sync", "images.list", "--source", scene.host, "--cluster", nobody())
    assert ended.returncode == 3
    assert re.search(
        r"regwrap: no Dask scheduler answers at tcp://127\.0\.0\.1:\d+: .+\n  -> start one \(dask scheduler\)",
        ended.stderr,
    )


def test_a_worker_whose_name_is_another_registry_refuses(farm: Farm) -> None:
    other = farm.cli.directory / "other.yaml"
    other.write_text("registries:\n  ci:\n    url: http://192.0.2.1:5000\n")
    mine = farm.cli.directory / "regwrap.yaml"
    mine.write_text(f"registries:\n  ci:\n    url: http://{farm.source.host}\nsource: ci\n")
    farm.cluster.start_worker("astray", {"REGWRAP_CONFIG": f"{other}"})
    words = ["sync", "images.list", "--dest", "./archive", "--cluster", farm.cluster.address]
    ended = farm.cli(*words)
    assert ended.returncode == 2
    assert "4 workers of the cluster cannot take part" in ended.stderr
    assert (
        f"ci is 192.0.2.1:5000 in the configuration of this worker, and {farm.source.host} in that of the client"
        in (ended.stderr)
    )
    assert farm.sent == 0


def test_a_scheduler_that_goes_ends_the_run_and_the_same_command_goes_on(farm: Farm) -> None:
    farm.source.rate = 400_000
    run = farm.cli.start(*farm.words())
    waited_for(lambda: farm.sent > 1_000_000, "nothing came")
    farm.cluster.kill_scheduler()
    _out, err = run.communicate(timeout=60)
    assert run.returncode == 3, err
    assert re.search(r"regwrap: the Dask scheduler tcp://\S+ is gone: .+\n  -> start it again and rerun", err)
    assert not storage_problems(farm.archive)
    farm.source.rate = 0
    before = farm.sent
    farm.cluster.start_scheduler()
    farm.cluster.start_worker("next")
    assert farm.sync().returncode == 0
    assert farm.holds_all()
    assert farm.sent - before < unique_bytes(farm.images)


def test_ctrl_c_ends_the_work_on_all_workers(farm: Farm) -> None:
    farm.source.rate = 50_000  # each of the large layers takes 20 s
    run = farm.cli.start(*farm.words())
    waited_for(lambda: farm.sent > 150_000 and busy_worker(farm.cluster) is not None, "nothing came")
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    waited_for(lambda: busy_worker(farm.cluster) is None, "a worker went on")
    assert time.monotonic() - began < 10
    _out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    farm.source.rate = 0
    assert farm.sync().returncode == 0
    assert farm.holds_all()
    assert farm.sent < 1.5 * unique_bytes(farm.images)


def test_too_many_requests_count_for_the_cluster_as_a_whole(farm: Farm) -> None:
    farm.source.rate = 1_000_000
    refusal = Fault("refuse", "/blobs/", times=3, first=4, status=429, headers=(("Retry-After", "1"),))
    farm.source.faults.append((refusal, [0]))
    ended = farm.sync()
    assert ended.returncode == 0, ended.stderr
    assert farm.holds_all()
    assert max(b - a for a, b in pairwise(farm.source.times)) > 0.9  # and nobody asked meanwhile


def test_workers_push_into_a_registry(farm: Farm, tmp_path: Path, loopback_registry: StartRegistry) -> None:
    farm.source.rate = 2_000_000
    root = tmp_path / "dest"
    with faulty_proxy(loopback_registry(root).host) as dest:
        words = ["sync", "images.list", "--source", farm.source.host, "--dest", dest.host, "-j", "2"]
        run = farm.cli.start(*words, "--cluster", farm.cluster.address)
        waited_for(lambda: farm.sent > 500_000, "nothing came")
        farm.cluster.kill("w1")
        out, err = run.communicate(timeout=100)
        assert run.returncode == 0, err
        assert out.startswith("8 copied, 0 already there, 0 failed")
        tags = {name: Storage(root).resolve(*name.split(":")) for name in farm.images}
        assert tags == {name: image.top for name, image in farm.images.items()}
        assert not storage_problems(root)
        assert farm.cli(*words, "--cluster", farm.cluster.address).stdout.startswith("0 copied, 8 already there")


def test_workers_hash_a_storage_and_name_what_is_damaged(farm: Farm, tmp_path: Path) -> None:
    root = tmp_path / "ci"
    words = ["verify", f"{root}", "--hash", "--cluster", farm.cluster.address]
    whole = farm.cli(*words)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout == farm.cli("verify", f"{root}").stdout
    digest = Digest.of(farm.images["team/app3:1"].blobs[-1])
    with Storage(root).blob_path(digest).open("r+b") as file:
        file.write(b"rotten")
    farm.cluster.kill("w0")
    damaged = farm.cli(*words)
    assert damaged.returncode == 4
    assert f"blob {digest} does not match its digest" in damaged.stdout
    assert damaged.stdout == farm.cli("verify", f"{root}").stdout
    assert "x.tar is not a registry storage" in farm.cli("verify", "x.tar", "--cluster", farm.cluster.address).stderr


def test_workers_push_a_bundle_that_all_of_them_have(
    farm: Farm, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    tar, root = f"{tmp_path / 'release.tar'}", tmp_path / "site"
    assert farm.cli("package", "images.list", "--archive", f"{tmp_path / 'ci'}", "-o", tar).returncode == 0
    with faulty_proxy(loopback_registry(root).host) as dest:
        dest.delay = 0.05
        words = ["push", tar, f"{dest.host}/product", "--cluster", farm.cluster.address, "-j", "2"]
        run = farm.cli.start(*words, "--report", "report.json")
        waited_for(lambda: sum(dest.received.values()) > 500_000, "nothing came")
        farm.cluster.kill("w2")
        out, err = run.communicate(timeout=100)
        assert run.returncode == 0, err
        assert out.startswith("8 copied, 0 already there, 0 failed")
        tags = {name: Storage(root).resolve(*f"product/{name}".split(":")) for name in farm.images}
        assert tags == {name: image.top for name, image in farm.images.items()}
        assert not storage_problems(root)
        report = json.loads((farm.cli.directory / "report.json").read_text())
        unique, sent = unique_bytes(farm.images), sum(worker["bytes_sent"] for worker in report["workers"])
        # what the registry has got whole from the one that is dead is not sent again, and nobody counts it
        assert 0 < sent <= unique <= sum(dest.received.values()) < 1.5 * unique


def test_doctor_says_what_each_worker_has_and_lacks(farm: Farm, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    archive = tmp_path / "ci"
    words = ["doctor", "--archive", f"{archive}", "--cluster", farm.cluster.address]
    well = farm.cli(*words)
    assert well.stdout.count("  yes") == 3
    farm.cluster.start_worker("bare", {"PATH": f"{bare}"})
    ended = farm.cli(*words)
    assert ended.returncode == 3
    assert re.search(r"\): curl: not installed; apt-get install curl", ended.stdout)
    assert len(json.loads(farm.cli(*words, "--json").stdout)["workers"]) == 4


@dataclass
class CountedConnection:
    """`size` in bytes. `beats` is one on which a worker says twice a second that it lives: its size is the time's."""

    size: int = 0
    beats: bool = False


@contextmanager
def counted_way(address: str) -> Iterator[tuple[str, list[CountedConnection]]]:
    """Another address of a server, and what passes through it, both ways."""
    connections, target = list[CountedConnection](), urlsplit(address)

    def carry(reading: socket.socket, writing: socket.socket, counted: CountedConnection) -> None:
        with suppress(OSError):
            while data := reading.recv(65536):
                counted.size += len(data)
                counted.beats |= b"heartbeat_worker" in data
                writing.sendall(data)
        for end in (reading, writing):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _address = server.accept()
                far = socket.create_connection((target.hostname, target.port))
                stack.callback(near.close)
                stack.callback(far.close)
                connections.append(CountedConnection())
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=(*pair, connections[-1]), daemon=True).start()

    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)


def test_a_blob_takes_less_than_a_kilobyte_on_the_wire(
    cli: Cli, dask_host: DaskHost, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    images = {f"team/app{number}:1": make_image(f"app{number}") for number in range(120)}
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    blobs = len({Digest.of(blob) for image in images.values() for blob in image.blobs})
    with dask_cluster(dask_host, tmp_path / "cluster", workers=0) as cluster, counted_way(cluster.address) as way:
        cluster.address, connections = way
        cluster.start_worker("w0")
        ended = cli("sync", "images.list", "--source", host, "--dest", "./archive", "--cluster", cluster.address)
        assert ended.stdout.startswith("120 copied, 0 already there, 0 failed"), ended.stderr
        assert any(connection.beats for connection in connections)
        size = sum(connection.size for connection in connections if not connection.beats)
        assert 100 * blobs <= size <= 1000 * blobs, f"{size / blobs:.0f} bytes for each of {blobs} blobs"


def test_processes_of_this_machine_are_a_cluster_too(farm: Farm) -> None:
    farm.cluster.end()
    farm.cluster.address = "local:2"
    ended = farm.sync()
    assert ended.stdout.startswith("8 copied, 0 already there, 0 failed"), ended.stderr
    assert "local:2: 2 workers" in ended.stderr
    assert farm.sent == unique_bytes(farm.images)
    assert farm.holds_all()


def test_a_budget_of_connections_is_the_whole_clusters(farm: Farm) -> None:
    farm.source.rate = 2_000_000
    for place in (farm.cli.directory, *(farm.cluster.directory / name for name in farm.cluster.workers)):
        text = f"registries:\n  ci:\n    url: http://{farm.source.host}\n    max_connections: 2\n"
        (place / "regwrap.yaml").write_text(text)
    farm.source.most_together = 0
    assert farm.sync().returncode == 0
    assert farm.holds_all()
    assert farm.source.most_together <= 2


def test_a_worker_that_hangs_is_given_up_and_does_no_harm_later(
    cli: Cli, dask_host: DaskHost, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    images = shared_images(8, 1_000_000)
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    with faulty_proxy(host) as source, dask_cluster(dask_host, tmp_path / "cluster", ttl="3s") as cluster:
        farm = Farm(cli, cluster, images, source)
        source.rate = 400_000
        run = cli.start(*farm.words())
        waited_for(lambda: farm.sent > 1_000_000 and busy_worker(cluster) is not None, "nothing came")
        busy = busy_worker(cluster)
        assert busy
        os.kill(cluster.workers[busy], signal.SIGSTOP)
        source.rate = 0
        out, err = run.communicate(timeout=100)
        assert out.startswith("8 copied, 0 already there, 0 failed"), err
        os.kill(cluster.workers[busy], signal.SIGCONT)
        waited_for(lambda: busy_worker(cluster) is None, "it goes on")
        assert farm.holds_all()
        assert cli("verify", "./archive").returncode == 0


def test_tls_is_what_dask_has_configured(
    cli: Cli, dask_host: DaskHost, tmp_path: Path, loopback_registry: StartRegistry
) -> None:
    images = shared_images(2, 1000)
    host = loopback_registry(make_storage(tmp_path / "ci", images)).host
    (cli.directory / "images.list").write_text("".join(f"{name}\n" for name in images))
    pair = make_certificate(tmp_path / "tls")
    env = {
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": f"{pair.directory / 'ca.crt'}",
        **{
            f"DASK_DISTRIBUTED__COMM__TLS__{role}__{part}": f"{path}"
            for role in ("SCHEDULER", "WORKER", "CLIENT")
            for part, path in (("CERT", pair.cert), ("KEY", pair.key))
        },
    }
    with dask_cluster(dask_host, tmp_path / "cluster", workers=1, env=env) as cluster:
        assert cluster.address.startswith("tls://")
        words = ["sync", "images.list", "--source", host, "--dest", "./archive", "--cluster", cluster.address]
        ended = cli(*words, env=env)
        assert ended.stdout.startswith("2 copied"), ended.stderr
        refused = cli(*words)
        assert refused.returncode == 3
        assert "Dask's TLS is configured in" in refused.stderr
