"""`rotate`: the keys of a manager."""

from typing import Annotated

import typer

from strongroom.cli import completion
from strongroom.cli.access_code import from_file
from strongroom.cli.session import (
    Json,
    complain,
    connected,
    counted,
    human_size,
    misused,
    print_message,
)


def rotate(
    manager: Annotated[
        str,
        typer.Option("--manager", "-m", help="The manager whose keys are rotated.", autocompletion=completion.managers),
    ] = "default",
    model: Annotated[
        str, typer.Option("--model", help="Re-encrypt this model alone.", autocompletion=completion.models)
    ] = "",
    reencrypt: Annotated[bool, typer.Option("--reencrypt", help="Write all weights anew under new keys.")] = False,
    password_file: Annotated[
        str | None, typer.Option("--password-file", metavar="FILE", help="Make the new key of this password.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end of a re-encryption.")] = True,
    json: Json = False,
) -> None:
    """Rotate keys: wrap all of a manager's under a new one, which moves no weights and takes a moment.

    A model has no key of its own that others would not need, so with --model, as with --reencrypt, weights are written
    anew under new keys: what helps if a key itself has leaked.

    Example: strongroom rotate --manager fraud
    """
    if password_file is not None and (model or reencrypt):
        misused("a password makes the key that wraps the others: leave --model and --reencrypt out")
    password = None if password_file is None else from_file(password_file, "password")
    with connected() as client:
        if not (model or reencrypt):
            receipt = client.rotation.rotate(manager, password=password)
            line = (
                f"rotated {manager}: {counted(receipt.rewrapped_keys, 'key')} wrapped anew, "
                f"version {receipt.from_version} to {receipt.to_version}"
            )
            print_message(receipt, lambda: typer.echo(line), as_json_document=json)
            return
        job = client.rotation.reencrypt(manager, model=model)
        job = client.rotation.finished(job) if wait else job
    done = f"{counted(job.versions_done, 'version')}, {human_size(job.bytes_done)}"
    skipped = f"; protected, so left as they are: {', '.join(job.skipped_versions)}" if job.skipped_versions else ""
    line = f"re-encryption {job.reencryption_id} is {job.state}: {done}{skipped}"
    print_message(job, lambda: typer.echo(line), as_json_document=json)
    if job.state == "failed":
        raise typer.Exit(complain(job.error, 1))
