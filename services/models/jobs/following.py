"""Follows a job: tells whatever is new about it, until it has ended."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.models.jobs.queue import ENDED, Job, Line, Queue
from services.shared.errors import ResourceExhausted

# Seconds between two looks, and for how long somebody may follow: then they connect again.
_LOOK_SECONDS = 0.25
_MOST_SECONDS = 600.0
# Followers of a process: each has one of its threads.
_MOST_FOLLOWERS = 12


class TooManyFollowers(ResourceExhausted):
    """As many follow jobs as may."""

    reason = "TOO_MANY_FOLLOWERS"


@dataclass(frozen=True)
class News:
    """A job as it is now, the lines that are new, and the number of the last one."""

    job: Job
    lines: Sequence[Line]
    last_line: int


class Follower:
    """Looks at jobs for those who follow them.

    Args:
        monotonic: seconds that only grow.
        pause: waits so many seconds.
    """

    def __init__(self, queue: Queue, monotonic: Callable[[], float], pause: Callable[[float], object]) -> None:
        self._queue = queue
        self._monotonic = monotonic
        self._pause = pause
        self._room = threading.Semaphore(_MOST_FOLLOWERS)

    def follow(self, job_id: str, after_line: int, wanted: Callable[[], bool]) -> Iterator[News]:
        """The job now and whenever it changes, until it has ended, ten minutes are over or nobody wants it any more.

        Raises JobNotFound, also once the job is deleted; TooManyFollowers.
        """
        if not self._room.acquire(blocking=False):
            raise TooManyFollowers(
                "Too many follow jobs at this moment. Ask for the job now and then.", retry_after=5.0
            )
        try:
            until, told = self._monotonic() + _MOST_SECONDS, None
            while wanted() and self._monotonic() < until:
                job = self._queue.get(job_id)
                lines = self._queue.lines(job_id, after_line) if job.updated_at != (told and told.updated_at) else ()
                after_line = lines[-1].number if lines else after_line
                if lines or told != job:
                    yield News(job, lines, after_line)
                if job.state in ENDED:
                    return
                told = job
                self._pause(_LOOK_SECONDS)
        finally:
            self._room.release()
