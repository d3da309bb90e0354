"""`aws-access-key`: the access key of an IAM user.

AWS lets a user have two keys. The one before the current one is deleted when its grace ends, at the latest when the
next rotation begins. AWS shows the secret of a new key once: what a cut-off attempt made is found by the list of keys
that there were before it, and deleted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import boto3
import tenacity
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import StringConstraints

from services.secrets.rotation.options import FieldName, Options, SecretName
from services.secrets.rotation.rotator import (
    Data,
    Rotation,
    Rotator,
    Surroundings,
    TargetRefuses,
    TargetUnavailable,
    text_field,
)

# Seconds.
_TIMEOUT = 5
# A new key is known everywhere "almost immediately" (IAM user guide, "eventual consistency"): seconds of patience.
_SETTLING = 20

_UNAVAILABLE = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure"}


class AwsOptions(Options):
    """Whose key, and as whom to change it."""

    # Of IAM: letters, digits and `+=,.@_-`.
    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+=,.@_-]{1,64}$")]
    # The secret with the access key of who may change it; without, the user changes its own.
    admin_secret: SecretName | None = None
    id_field: FieldName = "access_key_id"
    secret_field: FieldName = "secret_access_key"  # noqa: S105 - a name


class AwsAccessKey(Rotator):
    """Access keys of AWS IAM users."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._endpoint = surroundings.aws_endpoint or None

    def check(self, options: Data) -> frozenset[str]:
        admin = AwsOptions.of(options).admin_secret
        return frozenset({admin} if admin else ())

    def prepare(self, rotation: Rotation) -> Data:
        return {"keys": self._keys(rotation, AwsOptions.of(rotation.options))}

    def propose(self, rotation: Rotation) -> Data:
        options = AwsOptions.of(rotation.options)
        self._delete_stray(rotation, options)
        with _answering():
            made = self._iam(rotation, options).create_access_key(UserName=options.user)["AccessKey"]
        return {
            **rotation.current,
            options.id_field: made["AccessKeyId"],
            options.secret_field: made["SecretAccessKey"],
        }

    def test(self, rotation: Rotation, pending: Data) -> None:
        options = AwsOptions.of(rotation.options)
        sts = self._client("sts", options, pending, rotation.secret)
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TargetRefuses),
            wait=tenacity.wait_exponential(multiplier=0.5, max=5),
            stop=tenacity.stop_after_delay(_SETTLING),
            reraise=True,
        ):
            with attempt, _answering():
                sts.get_caller_identity()

    def rollback(self, rotation: Rotation, pending: Data | None) -> None:
        options = AwsOptions.of(rotation.options)
        if not pending:
            self._delete_stray(rotation, options)
        else:
            self._delete(rotation, options, text_field(pending, options.id_field, rotation.secret))

    def retire(self, rotation: Rotation, previous: Data) -> None:
        options = AwsOptions.of(rotation.options)
        key_id = previous.get(options.id_field)
        if key_id and key_id != rotation.current.get(options.id_field):
            self._delete(rotation, options, str(key_id))

    def _delete_stray(self, rotation: Rotation, options: AwsOptions) -> None:
        """Deletes what appeared since `prepare`: the key of an attempt that was cut off."""
        known = {*rotation.notes.get("keys", ()), rotation.current.get(options.id_field)}
        for key_id in self._keys(rotation, options):
            if rotation.notes and key_id not in known:
                self._delete(rotation, options, key_id)

    def _keys(self, rotation: Rotation, options: AwsOptions) -> list[str]:
        with _answering():
            listed = self._iam(rotation, options).list_access_keys(UserName=options.user)["AccessKeyMetadata"]
        return sorted(key["AccessKeyId"] for key in listed)

    def _delete(self, rotation: Rotation, options: AwsOptions, key_id: str) -> None:
        with _answering(gone_is_fine=True):
            self._iam(rotation, options).delete_access_key(UserName=options.user, AccessKeyId=key_id)

    def _iam(self, rotation: Rotation, options: AwsOptions) -> Any:
        if options.admin_secret is None:
            return self._client("iam", options, rotation.current, rotation.secret)
        name = options.admin_secret
        return self._client("iam", AwsOptions(user=options.user), rotation.read(name), name)

    def _client(self, service: str, options: AwsOptions, key: Data, secret: str) -> Any:
        # A session of its own: the default one would find credentials of the service's surroundings.
        session = boto3.Session(
            aws_access_key_id=text_field(key, options.id_field, secret),
            aws_secret_access_key=text_field(key, options.secret_field, secret),
            region_name="us-east-1",
        )
        timeouts = Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"total_max_attempts": 2})
        return session.client(service, endpoint_url=self._endpoint, config=timeouts)


@contextmanager
def _answering(*, gone_is_fine: bool = False) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code == "NoSuchEntity" and gone_is_fine:
            return
        if code in _UNAVAILABLE:
            raise TargetUnavailable(f"AWS says {code}.") from None
        raise TargetRefuses(f"AWS refuses {error.operation_name}: {code}.") from None
    except BotoCoreError as error:
        raise TargetUnavailable(f"AWS does not answer ({type(error).__name__}).") from None
