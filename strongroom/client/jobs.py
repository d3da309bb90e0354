"""Jobs: trainings and predictions that wait, run or have ended."""

import time
from collections.abc import Iterator

from strongroom.client.paging import pages
from strongroom.connection import Connection
from strongroom.models.v1 import jobs_pb2 as pb
from strongroom.models.v1 import jobs_pb2_grpc
from strongroom.retries import Repeat

ENDED = ("completed", "failed", "canceled")
# Seconds between two looks of whoever waits: the first ones follow quickly.
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 2.0


class Jobs:
    """Shows jobs, follows and cancels them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = jobs_pb2_grpc.JobServiceStub(connection.channel)

    def get(self, job_id: str) -> pb.Job:
        return self._connection.call(self._stub.GetJob, pb.GetJobRequest(id=job_id), repeat=Repeat.SAFE)

    def log(self, job_id: str, *, after_line: int = 0) -> list[pb.LogLine]:
        """The lines of a job's log, at most its last 1000."""
        request = pb.ListJobLogRequest(id=job_id, after_line=after_line)
        return list(self._connection.call(self._stub.ListJobLog, request, repeat=Repeat.SAFE).lines)

    def watch(self, job_id: str, *, after_line: int = 0) -> Iterator[pb.WatchJobResponse]:
        """The job whenever it changes, with new lines of its log, until it has ended."""
        while True:
            call = self._connection.begin(self._stub.WatchJob, pb.WatchJobRequest(id=job_id, after_line=after_line))
            for news in self._connection.answers(call):
                after_line = news.lines[-1].number if news.lines else after_line
                yield news
                if news.job.status in ENDED:
                    return

    def wait(self, job_id: str, *, seconds: float = 3600.0) -> pb.Job:
        """The job once it has ended. Raises TimeoutError."""
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while (job := self.get(job_id)).status not in ENDED:
            if time.monotonic() + pause > deadline:
                raise TimeoutError(f"job {job_id} is {job.status}")
            time.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 1.5)
        return job

    def list(self, *, status: str = "") -> Iterator[pb.Job]:
        """The jobs that the caller may read, the newest first; those in one state alone, if it is named."""
        for page in pages(self._connection, self._stub.ListJobs, pb.ListJobsRequest(status=status)):
            yield from page.jobs

    def cancel(self, job_id: str) -> None:
        """Cancels a job that has not ended; deletes one that has."""
        self._connection.call(self._stub.DeleteJob, pb.DeleteJobRequest(id=job_id))
