"""JobService."""

import json
from collections.abc import Iterator

import grpc
from google.api import httpbody_pb2
from google.protobuf import empty_pb2, json_format, struct_pb2

from services.models.jobs.following import Follower, News
from services.models.jobs.queue import Job, Line, Queue
from services.models.messages import bare_list, timestamp
from services.shared.call import answer_header, caller
from strongroom.models.v1 import jobs_pb2 as pb
from strongroom.models.v1 import jobs_pb2_grpc


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Shows jobs, follows and cancels them."""

    def __init__(self, queue: Queue, follower: Follower) -> None:
        self._queue = queue
        self._follower = follower

    def ListJobs(self, request: pb.ListJobsRequest, context: grpc.ServicerContext) -> pb.ListJobsResponse:
        jobs, token = self._list(request, context)
        return pb.ListJobsResponse(jobs=map(_message, jobs), next_page_token=token)

    def EnumerateJobs(self, request: pb.ListJobsRequest, context: grpc.ServicerContext) -> struct_pb2.ListValue:
        jobs, token = self._list(request, context)
        if token:
            answer_header(context, "next-page-token", token)
        return bare_list(map(_message, jobs))

    def GetJob(self, request: pb.GetJobRequest, context: grpc.ServicerContext) -> pb.Job:
        return _message(self._queue.get(request.id))

    def DeleteJob(self, request: pb.DeleteJobRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._queue.cancel_or_delete(request.id)
        return empty_pb2.Empty()

    def WatchJob(self, request: pb.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchJobResponse]:
        for news in self._follower.follow(request.id, request.after_line, context.is_active):
            yield pb.WatchJobResponse(job=_message(news.job), lines=map(_line, news.lines))

    def StreamJob(self, request: pb.WatchJobRequest, context: grpc.ServicerContext) -> Iterator[httpbody_pb2.HttpBody]:
        for news in self._follower.follow(request.id, request.after_line, context.is_active):
            yield httpbody_pb2.HttpBody(content_type="text/event-stream", data=_events(news))

    def ListJobLog(self, request: pb.ListJobLogRequest, context: grpc.ServicerContext) -> pb.ListJobLogResponse:
        self._queue.get(request.id)
        return pb.ListJobLogResponse(lines=map(_line, self._queue.lines(request.id, request.after_line)))

    def _list(self, request: pb.ListJobsRequest, context: grpc.ServicerContext) -> tuple[list[Job], str]:
        principal = caller(context)
        return self._queue.list(
            request.page_size,
            request.page_token,
            lambda id_: principal.allows("jobs.read", f"jobs/{id_}"),
            request.status,
        )


def _message(job: Job) -> pb.Job:
    return pb.Job(
        id=job.id,
        status=job.state,
        result=job.result,
        created_at=timestamp(job.created_at),
        updated_at=timestamp(job.updated_at),
        type=job.kind,
        config_id=job.config_id,
        model_artifact_id=job.model_artifact_id,
        artifact_id=job.artifact_id,
        reason=job.reason,
        progress=job.progress,
        attempts=job.attempts,
        created_by=job.created_by,
        started_at=timestamp(job.started_at) if job.started_at else None,
        finished_at=timestamp(job.finished_at) if job.finished_at else None,
        seconds=job.milliseconds / 1000,
        cost_estimate=job.cost,
    )


def _line(line: Line) -> pb.LogLine:
    return pb.LogLine(number=line.number, time=timestamp(line.written_at), text=line.text)


def _events(news: News) -> bytes:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    events = [
        ("log", line.number, {"number": line.number, "text": line.text, "time": line.written_at.isoformat()})
        for line in news.lines
    ]
    job = json_format.MessageToDict(
        _message(news.job), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    events.append(("status", news.last_line, job))
    return "".join(
        f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n" for kind, number, data in events
    ).encode()
