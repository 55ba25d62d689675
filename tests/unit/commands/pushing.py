"""A push as tests of it start it: its job, whose programs only answer from a script."""

from regwrap.core.location import Location, Timeouts
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.job import Job, TransferListener
from tests.fakes import Scripted


def push_job(scripted: Scripted, listener: TransferListener, policy: RetryPolicy) -> Job:
    return Job(
        runner=scripted.runner,
        scratch=scripted.runner.scratch,
        source=None,
        archive=Location(name="none"),
        location_of=lambda host: Location(name=host),
        jobs=2,
        retry=Retry(policy, scripted.runner.stopping),
        timeouts=Timeouts(),
        environment=(),
        listener=listener,
    )
