"""`strongroom secrets ages`: which secrets are due for rotation."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from strongroom.cli.session import Json, connected, moment, print_json, print_table

# The last tenth of the policy: time to plan a rotation.
_DUE = 0.9


def ages(
    prefix: Annotated[str, typer.Argument(help="Only names that begin with this.")] = "",
    max_age: Annotated[int, typer.Option(min=1, max=3650, help="Days after which a secret should be rotated.")] = 90,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only those that are older than that.")] = False,
    json: Json = False,
) -> None:
    """Tell for how long the current version of each secret is in use, the oldest first.

    Example: strongroom secrets ages prod/ --max-age 180
    """
    now, policy = datetime.now(UTC), timedelta(days=max_age)
    with connected() as client:
        found = client.secrets.list(prefix, written_before=now - policy if overdue else None)
        secrets = sorted((s for s in found if s.current_version), key=lambda s: s.updated_at.ToNanoseconds())
    aged = [(secret, now - secret.updated_at.ToDatetime(UTC)) for secret in secrets]
    if json:
        documents = [
            {
                "name": secret.name,
                "current_version": secret.current_version,
                "updated_at": secret.updated_at.ToJsonString(),
                "age_days": age.days,
                "status": status(age, policy),
            }
            for secret, age in aged
        ]
        print_json({"secrets": documents, "max_age_days": max_age})
        return
    rows = [
        [secret.name, str(secret.current_version), f"{age.days} d", status(age, policy), moment(secret.updated_at)]
        for secret, age in aged
    ]
    print_table(["name", "version", "age", "status", "in use since"], rows)


def status(age: timedelta, policy: timedelta) -> str:
    """`ok`, `due`, or `overdue`."""
    return "overdue" if age > policy else "due" if age >= _DUE * policy else "ok"
