"""Whether the whole installation works, as far as a caller at the gateway would notice."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.shared.database import Database
from services.shared.errors import Unavailable

HEALTHY = "healthy"

# Seconds that another service has to say how it is.
_DEADLINE = 1.0
_SERVING = health_pb2.HealthCheckResponse.SERVING


class PartUnhealthy(Unavailable):
    reason = "PART_UNHEALTHY"


class Health:
    """Asks every part.

    Args:
        database: auth's own.
        own: raises Unavailable while auth itself can't do its work.
        channels: to the other services, by name.
        replicas: how many of each there are; one that works is enough.
    """

    def __init__(
        self,
        database: Database,
        own: Callable[[], object],
        channels: Mapping[str, grpc.Channel],
        replicas: Mapping[str, int],
    ) -> None:
        self._database = database
        self._own = own
        self._stubs: dict[str, Any] = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}
        self._replicas = replicas

    def check(self) -> dict[str, str]:
        """Every part's state by its name. Raises PartUnhealthy, which names the first part that fails."""
        request = health_pb2.HealthCheckRequest()
        # All at once: together they take as long as the slowest. A channel asks the replicas in turn.
        answers = {
            name: [stub.Check.future(request, timeout=_DEADLINE) for _ in range(self._replicas.get(name, 1))]
            for name, stub in self._stubs.items()
        }
        parts: dict[str, Callable[[], object]] = {"database": self._ping, "auth": self._own}
        parts |= {name: partial(_serving, answer) for name, answer in answers.items()}
        for name, ask in parts.items():
            try:
                ask()
            except (sa.exc.SQLAlchemyError, Unavailable):
                raise PartUnhealthy(f"{name} is not healthy. Its log says why.", part=name) from None
        return dict.fromkeys(parts, HEALTHY)

    def _ping(self) -> None:
        """Raises unless the database answers."""
        with self._database.read() as connection:
            connection.execute(sa.select(1))


def _serving(answers: Sequence[Any]) -> None:
    """Raises Unavailable unless one of them says so."""
    if not any(answer.exception() is None and answer.result().status == _SERVING for answer in answers):
        raise Unavailable("The service is starting or lacks something it needs.")
