"""Someone with a credential, who asks the same through the gateway over REST and over gRPC."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.stack import Stack


@dataclass(frozen=True)
class Caller:
    """A caller: `header` is `X-API-Key`, or `Authorization` with the scheme in the credential; without, a stranger."""

    stack: Stack
    credential: str = field(default="", repr=False)
    header: str = "X-API-Key"

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """HTTP status and decoded JSON of the answer; None where the body is empty."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.stack.url}{path}", data, method=method)  # noqa: S310
        request.add_header("content-type", "application/json")
        if self.credential:
            request.add_header(self.header, self.credential)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            refused = error
        assert refused.headers["content-type"] == "application/problem+json"
        return refused.code, json.loads(refused.read())

    def grpc(self, stub: Any, method: str, request: Any) -> Any:
        """The answer. Raises grpc.RpcError."""
        metadata = [(self.header.lower(), self.credential)] if self.credential else []
        with grpc.insecure_channel(self.stack.target) as channel:
            return getattr(stub(channel), method)(request, metadata=metadata, timeout=20)

    def code(self, stub: Any, method: str, request: Any) -> str:
        """The name of the gRPC code that the call ends with."""
        try:
            self.grpc(stub, method, request)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def administrator(stack: Stack) -> Caller:
    """Whoever has the key that `strongroom up` made."""
    return Caller(stack, stack.admin_key)
