"""The layer that records calls.

Of a method that is `audited` every call is an event, which is durable before the answer goes out: an acknowledged
change always has its event, and a secret leaves only behind its own. Before a change its intent is on disk, so a
process that is killed between a change and its event leaves a trace as well. Refusals are events of every method;
nobody waits for them.

A download's event is written when its first bytes are ready, before they go out: once they have, whoever holds them may
cut the connection or the power, and would have read unseen. What becomes of the rest says the request's log line.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.shared import access, errors, status
from services.shared.audit.event import ANONYMOUS, CALL, Event, Outcome
from services.shared.audit.intents import Intent
from services.shared.audit.trail import Trail
from services.shared.audit.writer import AuditUnavailable
from services.shared.call import Call, address_of

_REFUSALS = (errors.Unauthenticated, errors.PermissionDenied)


class AuditLayers:
    """Two layers: one around every check, whose refusals are events, and one around the servicer alone.

    Args:
        trail: takes the events.
        refused: hears of every refusal beside the trail.
    """

    def __init__(self, trail: Trail, refused: Callable[[Event], None] | None = None) -> None:
        self._trail = trail
        self._refused = refused

    @contextmanager
    def record(self, call: Call) -> Iterator[None]:
        """Records how the call ended."""
        if call.method.audited:
            self._trail.check()
        call.audit = record = _Record(call, self._trail)
        call.around_answers.append(record.before_first)
        try:
            yield
        except BaseException as error:
            event = record.failed(error)
            if self._refused and event is not None and event.outcome == "denied":
                self._refused(event)
            raise
        record.allowed()

    def intend(self, call: Call) -> None:
        """Records that the call, to which nothing is objected, is about to change something."""
        if changes(call.method):
            call.audit.intend()


def changes(method: access.Method) -> bool:
    """Whether calls may change what a caller who is known may change; others are in order without an intent.

    Who signs in is known afterwards, and leaves a session that tells of it.
    """
    reads = all(rule.permission.endswith(".read") for rule in method.rules if not rule.when)
    return method.audited and not method.public and not reads


class _Record:
    """One event of one call."""

    def __init__(self, call: Call, trail: Trail) -> None:
        self._call = call
        self._trail = trail
        self._is_done = not call.method.audited
        self._intent: Intent | None = None

    def intend(self) -> None:
        """Raises AuditUnavailable: what can't be recorded is not begun."""
        self._intent = self._trail.begin(self._event("allowed", "", ""))

    def before_first(self, answers: Iterator[Any]) -> Iterator[Any]:
        """A stream's answers; the first comes out when the event is durable."""
        for answer in answers:
            self.allowed()
            yield answer

    def allowed(self) -> None:
        """Raises AuditUnavailable: what can't be recorded gets no answer."""
        if not self._is_done:
            self._is_done = True
            self._record(self._event("allowed", "OK", ""))

    def failed(self, error: BaseException) -> Event | None:
        """The event of a call that ended with this error, if it has one."""
        if isinstance(error, AuditUnavailable):
            return None
        known = status.foreseen(error)
        if isinstance(known, _REFUSALS):
            event = self._event("denied", status.code_of(known).name, known.error_reason)
            self._is_done = True
            self._trail.note(event)
            self._settle()
            return event
        if self._is_done:
            return None
        self._is_done = True
        code, reason = (status.code_of(known).name, known.error_reason) if known else self._unforeseen(error)
        event = self._event("failed", code, reason)
        if isinstance(known, errors.ResourceExhausted) and self._intent is None:
            self._trail.note(event)  # over a limit nothing was begun, and callers do not stop for that
        else:
            with suppress(AuditUnavailable):  # the caller hears of the first error; the writer keeps the event
                self._record(event)
        return event

    def _record(self, event: Event) -> None:
        if event.principal == ANONYMOUS:
            # Nobody has signed in or out: strangers can cause as many of these as they like.
            self._trail.note(event)
        else:
            self._trail.record(event)
        self._settle()

    def _settle(self) -> None:
        if self._intent is not None:
            self._trail.settle(self._intent)

    def _event(self, outcome: Outcome, code: str, reason: str) -> Event:
        call = self._call
        principal, name = call.principal.id, call.principal.name
        if principal == ANONYMOUS:
            # Methods that sign somebody in say who it is.
            principal = str(getattr(call.answer, "principal", "")) or ANONYMOUS
        return Event(
            kind=CALL,
            principal=principal,
            principal_name=name,
            key_prefix=call.principal.key_prefix,
            method=call.method.path.removeprefix("/"),
            resource=resource_of(call.method, call.first, call.answer),
            outcome=outcome,
            code=code,
            reason=reason,
            request_id=call.request_id,
            address=address_of(call.metadata),
        )

    def _unforeseen(self, error: BaseException) -> tuple[str, str]:
        # A stream that nobody reads any more ends with GeneratorExit.
        gone = isinstance(error, GeneratorExit) or not self._call.context.is_active()
        return ("CANCELLED", "CLIENT_GONE") if gone else ("INTERNAL", "INTERNAL")


def resource_of(method: access.Method, request: Message | None, answer: Any = None) -> str:
    """What a call is about, in the words of the method's access rule, followed by version and file where there are any.

    Of a method whose rule names none, the manager, the keys or the id in the request; of one that made something, with
    the id of what it made. Never anything else of a message.
    """
    if request is None:
        return ""
    template = next((rule.resource for rule in method.rules if rule.resource and not rule.when), "")
    if not template and _text(request, "manager_id"):
        # Which model it is, only its answer knows.
        template = "managers/{manager_id}"
    resource = access.fill(template, request) if template else _keys(request) or _text(request, "id")
    for rule in method.rules:
        # `providers/aws/secrets/prod/db` is another one than `secrets/prod/db`.
        if rule.when and access.counts(rule, request):
            resource = f"{access.fill(rule.resource, request)}/{resource}".rstrip("/")
    for part, name in (("versions", "version"), ("files", "path"), ("paths", "filepath")):
        # Of several files none is named: the event is about the version then.
        several = name == "path" and len(getattr(request, "more_paths", [])) > 0
        if template and not several and (text := _text(request, name)):
            resource = f"{resource}/{part}/{text}"
    if isinstance(answer, Message) and not _text(request, "id") and (made := _text(answer, "id")):
        resource = f"{resource}/{made}" if resource else made
    return resource


def _keys(request: Message) -> str:
    """What a service asks of the key service is about: a key-encryption key, or the first of many keys."""
    ids = [key.key_id for key in getattr(request, "keys", []) if _text(key, "key_id")]
    ids += getattr(request, "key_ids", [])
    kek = _text(request, "kek_id")
    return f"keks/{kek}" if kek else f"keys/{','.join(ids)}" if ids else ""


def _text(message: Message, name: str) -> str:
    return str(getattr(message, name)) if name in _texts(message.DESCRIPTOR) else ""


@cache
def _texts(descriptor: Descriptor) -> frozenset[str]:
    """The names of a message's single string fields."""
    return frozenset(
        field.name for field in descriptor.fields if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated
    )
