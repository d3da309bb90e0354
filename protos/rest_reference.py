"""Writes the list of REST paths from the protos' bindings, access rules and comments."""

from described import Contract, first_sentence

_HEADER = """# REST paths

Made from `protos/` by `make proto`; the comments there are the manual, with every field, bound and error, and
`/openapi.json` has them all ([api.md](api.md)). Bodies and
answers are JSON with the names of the proto's fields. A `:verb` belongs to the last part of a path; `{name=**}` takes
several parts. HEAD is answered 405, a percent-encoded dollar sign (`%24`) 404.

The credential goes into a header, never into the URL: `X-API-Key: KEY` or `Authorization: Bearer TOKEN`. Errors are
`application/problem+json` with `type`, `title`, `status`, `detail`, `instance`, `status_code`, `reason`, `request_id`.
"""


def render(contract: Contract) -> str:
    """The page."""
    parts = [_HEADER]
    for service in contract.services:
        rows = [
            f"| `{method.verb.upper()} {method.template}` | {method.needs()} | {first_sentence(method.comment)} "
            f"| {method.name} |"
            for method in service.methods
            if method.verb
        ]
        if rows:
            heading = f"\n## {service.full_name}\n\n{first_sentence(service.comment)}\n"
            parts += [heading, "| path | needs | what it does | method |", "|---|---|---|---|", *rows]
    return "\n".join(parts) + "\n"
