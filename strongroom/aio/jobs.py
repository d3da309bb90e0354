"""Jobs: trainings and predictions that wait, run or have ended."""
# Made from strongroom/client/jobs.py by `make clients`. Change it there.

import asyncio
import time
from collections.abc import AsyncIterator

from strongroom.aio.connection import AsyncConnection
from strongroom.aio.paging import pages
from strongroom.client.jobs import _FIRST_PAUSE, _LAST_PAUSE, ENDED
from strongroom.models.v1 import jobs_pb2 as pb
from strongroom.models.v1 import jobs_pb2_grpc
from strongroom.retries import Repeat


class Jobs:
    """Shows jobs, follows and cancels them."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._stub = jobs_pb2_grpc.JobServiceStub(connection.channel)

    async def get(self, job_id: str) -> pb.Job:
        return await self._connection.call(self._stub.GetJob, pb.GetJobRequest(id=job_id), repeat=Repeat.SAFE)

    async def log(self, job_id: str, *, after_line: int = 0) -> list[pb.LogLine]:
        """The lines of a job's log, at most its last 1000."""
        request = pb.ListJobLogRequest(id=job_id, after_line=after_line)
        return list((await self._connection.call(self._stub.ListJobLog, request, repeat=Repeat.SAFE)).lines)

    async def watch(self, job_id: str, *, after_line: int = 0) -> AsyncIterator[pb.WatchJobResponse]:
        """The job whenever it changes, with new lines of its log, until it has ended."""
        while True:
            call = await self._connection.begin(
                self._stub.WatchJob, pb.WatchJobRequest(id=job_id, after_line=after_line)
            )
            async for news in self._connection.answers(call):
                after_line = news.lines[-1].number if news.lines else after_line
                yield news
                if news.job.status in ENDED:
                    return

    async def wait(self, job_id: str, *, seconds: float = 3600.0) -> pb.Job:
        """The job once it has ended. Raises TimeoutError."""
        deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while (job := await self.get(job_id)).status not in ENDED:
            if time.monotonic() + pause > deadline:
                raise TimeoutError(f"job {job_id} is {job.status}")
            await asyncio.sleep(pause)
            pause = min(_LAST_PAUSE, pause * 1.5)
        return job

    async def list(self, *, status: str = "") -> AsyncIterator[pb.Job]:
        """The jobs that the caller may read, the newest first; those in one state alone, if it is named."""
        async for page in pages(self._connection, self._stub.ListJobs, pb.ListJobsRequest(status=status)):
            for each in page.jobs:
                yield each

    async def cancel(self, job_id: str) -> None:
        """Cancels a job that has not ended; deletes one that has."""
        await self._connection.call(self._stub.DeleteJob, pb.DeleteJobRequest(id=job_id))
