"""Secrets that the environment names instead of holding: in AWS Secrets Manager or Systems Manager Parameter Store.

| value | stands for |
|---|---|
| `aws-sm://NAME` | the secret of that name or ARN, a text |
| `aws-sm://NAME#FIELD` | one field of it, where the secret is a JSON object |
| `aws-ssm://NAME` | the parameter of that name, decrypted; a path begins with a slash: `aws-ssm:///strongroom/token` |
| anything else | itself |

Region, credentials and endpoint come from where the AWS tools look for them. A reference is read once, at the start.
"""

import json
import re
from typing import Any

_REFERENCE = re.compile(r"aws-(?P<store>sm|ssm)://(?P<name>[^#\s]{1,2048})(?:#(?P<field>\S{1,256}))?")
_PREFIX = re.compile(r"aws-(sm|ssm)://")
# Seconds for one attempt: a service that starts must not hang on a cloud that does not answer.
_TIMEOUT = 5


class SecretReferenceError(ValueError):
    """A reference that can't be followed. Names the reference, never what it stands for."""


def resolve(value: str) -> str:
    """The secret that a setting stands for, without white space around it; a plain value as it is.

    Raises SecretReferenceError for a reference that is malformed or can't be read, and where boto3 is missing.
    """
    if not _PREFIX.match(value):
        return value
    reference = _REFERENCE.fullmatch(value.strip())
    if reference is None or (reference["store"] == "ssm" and reference["field"]):
        raise SecretReferenceError("A secret is named as aws-sm://NAME, aws-sm://NAME#FIELD or aws-ssm://NAME.")
    # The name of a store's field is public; were a key pasted behind the sign, it would not be printed.
    where = f"aws-{reference['store']}://{reference['name']}"
    text = _read(reference["store"], reference["name"], where)
    text = _field(text, reference["field"], where) if reference["field"] else text
    if not text.strip():
        raise SecretReferenceError(f"{where} is empty.")
    return text.strip()


def _read(store: str, name: str, where: str) -> str:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        message = f"{where} needs boto3, which is not installed: pip install 'strongroom[aws]'"
        raise SecretReferenceError(message) from None
    config = Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"total_max_attempts": 3})
    try:
        if store == "ssm":
            answer = boto3.client("ssm", config=config).get_parameter(Name=name, WithDecryption=True)
            return str(answer["Parameter"]["Value"])
        secret: dict[str, Any] = boto3.client("secretsmanager", config=config).get_secret_value(SecretId=name)
    except (BotoCoreError, ClientError) as error:
        # Messages of the client name region, endpoint and error, and quote nothing of the answer.
        raise SecretReferenceError(f"{where} can't be read: {error}") from None
    if "SecretString" not in secret:
        raise SecretReferenceError(f"{where} is binary; store it as text.")
    return str(secret["SecretString"])


def _field(text: str, field: str, where: str) -> str:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    # An error of the parser would quote the secret.
    if not isinstance(fields, dict) or not isinstance(fields.get(field), str):
        raise SecretReferenceError(f"{where} is not a JSON object with the text {field}.")
    return str(fields[field])
