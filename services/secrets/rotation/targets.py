"""Which servers rotators may reach: those that the operator named, and nobody else.

Who may set up a rotation chooses where the service connects to with its own place in the network; without this list
they would reach what only the service can reach (server-side request forgery, OWASP A10:2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from services.shared.errors import FailedPrecondition

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class TargetForbidden(FailedPrecondition):
    reason = "ROTATION_TARGET_FORBIDDEN"

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Rotators may not reach {host}:{port}. The operator allows it with STRONGROOM_ROTATION_TARGETS.",
            target=f"{host}:{port}",
        )


@dataclass(frozen=True)
class Targets:
    """`HOST:PORT` each; `*.example.com` stands for every host below, `*` as the port for every port."""

    allowed: Sequence[str] = ()

    @classmethod
    def parse(cls, text: str) -> "Targets":
        """Of a list with commas."""
        return cls(tuple(part.strip().lower() for part in text.split(",") if part.strip()))

    def check(self, host: str, port: int) -> None:
        """Raises TargetForbidden."""
        for entry in self.allowed:
            pattern, _, ports = entry.rpartition(":")
            if fnmatchcase(host.lower(), pattern.strip("[]")) and ports in ("*", str(port)):
                return
        raise TargetForbidden(host, port)
