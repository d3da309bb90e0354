"""SecretService for requests that name a provider; those that name none are the embedded vault's."""

import base64
import binascii
from collections.abc import Sequence

import grpc
from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message

from services.secrets.providers.composition import Providers
from services.secrets.providers.configuration import EMBEDDED
from services.secrets.providers.provider import Data, Revision, Value, ValueUnreadable
from services.secrets.secret_messages import data_of, timestamp
from services.secrets.secret_servicer import SecretServicer
from services.secrets.vault import Vault
from services.shared.call import caller
from services.shared.database import Database
from services.shared.errors import InvalidArgument, PageTokenInvalid
from strongroom.secrets.v1 import secrets_pb2 as pb

_PAGE_SIZE = 100
# No version has a greater number.
_MOST_DIGITS = 9


class NotOfProviders(InvalidArgument):
    reason = "NOT_OF_PROVIDERS"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is of the primary alone: leave it out, or leave out provider.", field=field)


class NamedSecretServicer(SecretServicer):
    """Sends to the provider what names one."""

    def __init__(self, vault: Vault, database: Database, providers: Providers) -> None:
        super().__init__(vault, database)
        self._providers = providers

    def CreateSecret(self, request: pb.CreateSecretRequest, context: grpc.ServicerContext) -> pb.SecretVersion:
        if _is_primary(request):
            return super().CreateSecret(request, context)
        _refuse(request, "labels", "expires_at")
        data = data_of(request)
        made = self._providers.put(request.provider, request.name, data, expected="", allow_missing=True)
        return _version(request.provider, request.name, made)

    def UpdateSecret(self, request: pb.UpdateSecretRequest, context: grpc.ServicerContext) -> pb.SecretVersion:
        if _is_primary(request):
            return super().UpdateSecret(request, context)
        _refuse(request, "labels", "expires_at")
        made = self._providers.put(
            request.provider,
            request.name,
            data_of(request),
            expected=_expected(request),
            allow_missing=request.allow_missing,
        )
        return _version(request.provider, request.name, made)

    def GetSecret(self, request: pb.GetSecretRequest, context: grpc.ServicerContext) -> pb.GetSecretResponse:
        if _is_primary(request):
            return super().GetSecret(request, context)
        _refuse(request, "stage")
        revision = request.revision or (str(request.version) if request.version else "")
        return _value(request.provider, request.name, self._providers.get(request.provider, request.name, revision))

    def ListSecretVersions(
        self, request: pb.ListSecretVersionsRequest, context: grpc.ServicerContext
    ) -> pb.ListSecretVersionsResponse:
        if _is_primary(request):
            return super().ListSecretVersions(request, context)
        _refuse(request, "page_size", "page_token")
        versions = self._providers.versions(request.provider, request.name)
        return pb.ListSecretVersionsResponse(
            versions=[_version(request.provider, request.name, version) for version in versions],
            secret=pb.SecretSummary(name=request.name),
        )

    def ListSecrets(self, request: pb.ListSecretsRequest, context: grpc.ServicerContext) -> pb.ListSecretsResponse:
        if _is_primary(request):
            return super().ListSecrets(request, context)
        _refuse(request, "by_folder", "query", "label", "show_deleted", "written_before")
        principal, after = caller(context), _opened(request.page_token)
        names = [
            name
            for name in self._providers.names(request.provider, request.prefix)
            if name > after and principal.allows("secrets.list", f"secrets/{name}")
        ]
        return _page(names, request.page_size or _PAGE_SIZE)

    def DeleteSecret(self, request: pb.DeleteSecretRequest, context: grpc.ServicerContext) -> pb.DeleteSecretResponse:
        if _is_primary(request):
            return super().DeleteSecret(request, context)
        _refuse(request, "versions")
        self._providers.delete(request.provider, request.name)
        return pb.DeleteSecretResponse(name=request.name)


_Request = (
    pb.CreateSecretRequest
    | pb.UpdateSecretRequest
    | pb.GetSecretRequest
    | pb.ListSecretVersionsRequest
    | pb.ListSecretsRequest
    | pb.DeleteSecretRequest
)


def _is_primary(request: _Request) -> bool:
    if request.provider in ("", EMBEDDED):
        for field in ("revision", "expected_revision"):
            if getattr(request, field, ""):
                raise InvalidArgument(f"{field} is of named providers; the primary's versions have numbers.")
        return True
    return False


def _refuse(request: Message, *fields: str) -> None:
    """Raises NotOfProviders."""
    for field, _value in request.ListFields():
        if field.name in fields:
            raise NotOfProviders(field.name)


def _expected(request: pb.UpdateSecretRequest) -> str | None:
    if request.HasField("expected_version"):
        if request.expected_revision:
            raise InvalidArgument("Give expected_version or expected_revision, not both.")
        return str(request.expected_version) if request.expected_version else ""
    return request.expected_revision or None


def _version(provider: str, name: str, version: Revision) -> pb.SecretVersion:
    return pb.SecretVersion(
        name=name,
        version=_number(version.revision),
        created_at=timestamp(version.created_at),
        provider=provider,
        revision=version.revision,
    )


def _value(provider: str, name: str, value: Value) -> pb.GetSecretResponse:
    return pb.GetSecretResponse(
        name=name,
        version=_number(value.about.revision),
        data=_struct(name, value.data),
        created_at=timestamp(value.about.created_at),
        provider=provider,
        revision=value.about.revision,
    )


def _struct(name: str, data: Data) -> struct_pb2.Struct:
    try:
        return json_format.ParseDict(dict(data), struct_pb2.Struct())
    except json_format.ParseError:  # nested beyond what a message may be
        raise ValueUnreadable(name) from None


def _number(revision: str) -> int:
    return int(revision) if revision.isdecimal() and len(revision) <= _MOST_DIGITS else 0


def _page(names: Sequence[str], size: int) -> pb.ListSecretsResponse:
    page = [pb.SecretSummary(name=name) for name in names[:size]]
    token = base64.urlsafe_b64encode(page[-1].name.encode()).decode() if len(names) > size else ""
    return pb.ListSecretsResponse(secrets=page, next_page_token=token)


def _opened(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenInvalid("ListSecrets") from None
