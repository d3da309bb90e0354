"""`strongroom access explain`."""

from typing import Annotated, Any

import typer

from strongroom.cli import notation
from strongroom.cli.session import Json, connected, print_message, say

app = typer.Typer(help="Find out who may do what, and why.", no_args_is_help=True)


@app.command()
def explain(
    principal: Annotated[
        str, typer.Argument(help="key:ID, user:ID, user:E-MAIL, role:NAME, set:NAME, or self for yourself.")
    ],
    method: Annotated[str, typer.Argument(help="A method such as CommitUpload, or a permission such as models.write.")],
    resource: Annotated[str, typer.Argument(help="Such as managers/fraud/models/scorer.")] = "",
    json: Json = False,
) -> None:
    """Say which grant allows or denies it. The exit status is 0 either way: the question was answered.

    Example: strongroom access explain role:analyst models.write managers/fraud/models/scorer
    """
    with connected() as client:
        answer = client.access.explain(principal, method, resource)

    def for_people() -> None:
        say(answer.explanation)
        for rule in answer.rules:
            say(f"  {_rule(rule)}: {'passed' if rule.passed else 'not passed'}")
            for grant in rule.decided_by:
                say(f"    {notation.spelled(grant)}")

    print_message(answer, for_people, as_json_document=json)


def _rule(rule: Any) -> str:
    return f"{rule.permission} on {rule.resource or 'anything'}" if rule.kind == "permission" else str(rule.kind)
