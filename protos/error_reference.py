"""Writes the list of reasons of errors."""

from collections.abc import Mapping

from reasons import Reason

_HEADER = """# Errors

Made from the services and the gateway by `make proto`. A failure has the same reason over REST, where it stands at
`reason` in the problem document (RFC 9457), and over gRPC, where it stands in the `google.rpc.ErrorInfo` of the status.
A reason never changes; the sentence is for people and may. `…` stands for names and numbers.

| reason | HTTP | gRPC | what it says |
|---|---|---|---|
"""


def render(reasons: Mapping[str, Reason]) -> str:
    """The page."""
    rows = [
        f"| `{reason.name}` | {reason.status} | {reason.code or '–'} | {' '.join(reason.says.split())} |"
        for reason in reasons.values()
    ]
    return _HEADER + "\n".join(rows).replace("<", "&lt;") + "\n"
