"""A root key in AWS KMS, which never leaves it."""

from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services.secrets.root_keys.configuration import AwsKmsConfiguration
from services.secrets.root_keys.root_key import RootKey, RootKeyError, RootKeyUnavailable, WrongRootKey
from services.shared.configuration import ConfigurationError

_CONNECT_SECONDS = 5
_READ_SECONDS = 10
_ATTEMPTS = 3
# The pair that goes into every record of CloudTrail and that policies may ask for (kms:EncryptionContext:strongroom).
_CONTEXT = "strongroom"
# https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html
_ANOTHER = ("InvalidCiphertextException", "IncorrectKeyException")
_NOT_NOW = ("DependencyTimeoutException", "KMSInternalException", "ThrottlingException", "LimitExceededException")


@dataclass(frozen=True)
class AwsKmsRootKey:
    """A symmetric key, by id, ARN or alias."""

    key: str
    place: str
    client: Any = field(repr=False)
    kind: str = "aws-kms"

    def wrap(self, key: bytes, context: str) -> bytes:
        answer = self._call("encrypt", KeyId=self.key, Plaintext=key, EncryptionContext={_CONTEXT: context})
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: str) -> bytes:
        context_pair = {_CONTEXT: context}
        answer = self._call("decrypt", KeyId=self.key, CiphertextBlob=wrapped, EncryptionContext=context_pair)
        return bytes(answer["Plaintext"])

    def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return getattr(self.client, method)(**arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _ANOTHER:
                raise WrongRootKey(f"The database was encrypted under another root key than {self.place}.") from None
            if code in _NOT_NOW or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
                raise RootKeyUnavailable(f"The root key {self.place} does not answer ({code}). Try again.") from None
            message = f"The root key {self.place} refuses to be used ({code}): look at its policy and its name."
            raise RootKeyError(message) from None
        except BotoCoreError as error:
            message = f"The root key {self.place} can't be reached ({type(error).__name__}). Try again."
            raise RootKeyUnavailable(message) from None


def opened(configuration: AwsKmsConfiguration) -> RootKey:
    """The key; KMS is asked when it is used. Raises ConfigurationError."""

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
            "kms",
            region_name=configuration.region,
            endpoint_url=configuration.endpoint,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            ),
        )
    except (BotoCoreError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"AWS KMS can't be used ({type(error).__name__})") from None
    return AwsKmsRootKey(configuration.key, f"{configuration.region}/{configuration.key}", client)
