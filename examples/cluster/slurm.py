#!/usr/bin/env python3
"""A cluster of Slurm jobs for one run of regwrap: slurm.py WORKERS regwrap sync big.list --dest /shared/archive

Run it on a node that the workers reach, with a Python that all nodes share, in which regwrap[cluster] and dask-jobqueue
are installed. Dask's certificates (distributed.comm.tls) make it tls://, and are needed on all nodes.
"""

import subprocess
import sys

import dask.config
from dask_jobqueue import SLURMCluster


def main() -> int:
    workers, *command = sys.argv[1:]
    with SLURMCluster(
        job_name="regwrap",
        cores=2,  # an order at work and the next one
        processes=1,
        memory="2GB",
        walltime="12:00:00",
        job_extra_directives=["--ntasks=1"],
        protocol="tls://" if dask.config.get("distributed.comm.tls.ca-file", None) else "tcp://",
        scheduler_options={"dashboard": False},
    ) as cluster:
        if not command:
            sys.stdout.write(cluster.job_script())
            return 0
        cluster.scale(jobs=int(workers))
        words = [*command, "--cluster", cluster.scheduler_address]
        if cluster.scheduler_address.startswith("tcp:"):
            words.append("--insecure-cluster")
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
