"""Secrets in AWS Secrets Manager.

Which version is the current one says the stage AWSCURRENT. It is moved from the version that is expected to the new
one, which AWS refuses if it is at another one by then: that is check-and-set.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services.secrets.providers.configuration import AwsConfiguration
from services.secrets.providers.names import Below
from services.secrets.providers.provider import (
    CONNECT_SECONDS,
    READ_SECONDS,
    Data,
    ProviderRefused,
    ProviderUnavailable,
    Revision,
    RevisionAbsent,
    RevisionMismatch,
    SecretAbsent,
    SecretPresent,
    Value,
    ValueUnreadable,
    decoded,
    encoded,
)
from services.shared.configuration import ConfigurationError

_CURRENT = "AWSCURRENT"
_REVISION = re.compile(r"[A-Za-z0-9-]{32,64}")
_ATTEMPTS = 3
_CONNECTIONS = 16
_REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "ValidationException",
}


def opened(configuration: AwsConfiguration) -> "AwsProvider":
    """Asks nothing of the server yet. Raises ConfigurationError."""

    def read(name: str) -> str | None:
        reference = getattr(configuration, name)
        return None if reference is None else str(reference.read())

    try:
        session = boto3.Session(
            aws_access_key_id=read("access_key"),
            aws_secret_access_key=read("secret_key"),
            aws_session_token=read("session_token"),
            profile_name=configuration.profile,
        )
        client = session.client(
            "secretsmanager",
            region_name=configuration.region,
            endpoint_url=configuration.endpoint,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                max_pool_connections=_CONNECTIONS,
            ),
        )
    except (BotoCoreError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"AWS can't be used ({type(error).__name__})") from None
    return AwsProvider(client, Below(configuration.prefix), configuration.kms_key)


class AwsProvider:
    """Secrets below a prefix.

    Args:
        client: of boto3, for Secrets Manager; any number of threads may use it.
    """

    def __init__(self, client: Any, below: Below, kms_key: str | None = None) -> None:
        self._client = client
        self._below = below
        self._encryption = {"KmsKeyId": kms_key} if kms_key else {}

    def put(self, name: str, data: Data, expected: str | None = None) -> Revision:
        text = encoded(data)
        with _translated(name):
            about = self._about(name)
            if expected:
                return self._follow(name, text, expected, about)
            if about is None:
                return self._create(name, text, or_append=expected is None)
            if "DeletedDate" in about:
                # Somebody else deleted it, and AWS keeps it for its recovery window.
                self._client.restore_secret(SecretId=self._below.full(name))
            elif expected == "":
                raise SecretPresent(name)
            return self._append(name, text, _CURRENT)

    def get(self, name: str, revision: str = "") -> Value:
        if revision and not _REVISION.fullmatch(revision):
            raise RevisionAbsent(name, revision)
        # Without the stage, moto answers with the version that was written last.
        which = {"VersionId": revision} if revision else {"VersionStage": _CURRENT}
        with _translated(name, revision):
            found = self._client.get_secret_value(SecretId=self._below.full(name), **which)
        if "SecretString" not in found:
            raise ValueUnreadable(name)
        return Value(Revision(found["VersionId"], found["CreatedDate"]), decoded(name, found["SecretString"]))

    def versions(self, name: str) -> list[Revision]:
        found: list[dict[str, Any]] = []
        with _translated(name):
            # moto answers 500 to the question for versions of what is not there.
            if not self._there(name):
                raise SecretAbsent(name)
            request = {"SecretId": self._below.full(name), "IncludeDeprecated": True}
            while True:
                page = self._client.list_secret_version_ids(**request)
                found += page["Versions"]
                if not (token := page.get("NextToken")):
                    break
                request["NextToken"] = token
        # Several may be of one second.
        found.sort(key=lambda version: (_CURRENT in version["VersionStages"], version["CreatedDate"]), reverse=True)
        return [Revision(version["VersionId"], version["CreatedDate"]) for version in found]

    def list(self, prefix: str = "") -> Iterator[str]:
        with _translated(prefix):
            below = self._below.full(prefix)
            # Without the filter AWS lists all of the account's.
            wanted = {"Filters": [{"Key": "name", "Values": [below]}]} if below else {}
            for page in self._client.get_paginator("list_secrets").paginate(**wanted):
                for secret in page["SecretList"]:
                    own = self._below.own(secret["Name"])
                    if own is not None and own.startswith(prefix) and "DeletedDate" not in secret:
                        yield own

    def delete(self, name: str) -> bool:
        with _translated(name):
            # Its answer does not tell whether there was one.
            if not self._there(name):
                return False
            self._client.delete_secret(SecretId=self._below.full(name), ForceDeleteWithoutRecovery=True)
        return True

    def check(self) -> None:
        with _translated(""):
            self._client.list_secrets(MaxResults=1)

    def _about(self, name: str) -> Any:
        """What AWS tells of a secret without its value; None if it has none."""
        try:
            return self._client.describe_secret(SecretId=self._below.full(name))
        except self._client.exceptions.ResourceNotFoundException:
            return None

    def _there(self, name: str) -> bool:
        about = self._about(name)
        return about is not None and "DeletedDate" not in about

    def _create(self, name: str, text: str, *, or_append: bool) -> Revision:
        try:
            made = self._client.create_secret(
                Name=self._below.full(name), SecretString=text, ClientRequestToken=str(uuid4()), **self._encryption
            )
        except self._client.exceptions.ResourceExistsException:  # by now
            if or_append:
                return self._append(name, text, _CURRENT)
            raise SecretPresent(name) from None
        return Revision(made["VersionId"])

    def _append(self, name: str, text: str, stage: str) -> Revision:
        """Adds a version with a stage of its own; with AWSCURRENT it counts at once."""
        made = self._client.put_secret_value(
            SecretId=self._below.full(name),
            SecretString=text,
            ClientRequestToken=str(uuid4()),
            VersionStages=[stage],
        )
        return Revision(made["VersionId"])

    def _follow(self, name: str, text: str, expected: str, about: Any) -> Revision:
        place, stages = self._below.full(name), (about or {}).get("VersionIdsToStages", {})
        if about is None or "DeletedDate" in about or _CURRENT not in stages.get(expected, ()):
            raise RevisionMismatch(name)
        stage = f"strongroom-{uuid4()}"
        added = self._append(name, text, stage)
        try:
            self._client.update_secret_version_stage(
                SecretId=place, VersionStage=_CURRENT, RemoveFromVersionId=expected, MoveToVersionId=added.revision
            )
        except (
            self._client.exceptions.InvalidParameterException,
            self._client.exceptions.InvalidRequestException,
        ):
            raise RevisionMismatch(name) from None
        finally:
            # A version without a stage is removed by AWS in time: the one that lost, too. The write is done without it.
            with suppress(ClientError, BotoCoreError):
                self._client.update_secret_version_stage(
                    SecretId=place, VersionStage=stage, RemoveFromVersionId=added.revision
                )
        return added


@contextmanager
def _translated(name: str, revision: str = "") -> Iterator[None]:
    """Errors as the protocol has them, without AWS's text."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        # Invalid are requests about what is scheduled for deletion.
        if code in ("ResourceNotFoundException", "InvalidRequestException"):
            raise (RevisionAbsent(name, revision) if revision else SecretAbsent(name)) from None
        if code in _REFUSED or error.response["ResponseMetadata"].get("HTTPStatusCode") in (401, 403):
            raise ProviderRefused(code) from None
        raise ProviderUnavailable(code) from None
    except BotoCoreError as error:
        raise ProviderUnavailable(type(error).__name__) from None
