"""SecretService: requests to the vault and back."""

import base64
import binascii
from collections.abc import Sequence

import grpc

from services.secrets.secret_messages import (
    data_of,
    moment,
    summary_message,
    value_message,
    version_message,
)
from services.secrets.vault import Vault
from services.secrets.vault_search import Wanted, search, summary
from services.shared.call import caller
from services.shared.database import Database
from services.shared.errors import PageTokenInvalid
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc

_PAGE_SIZE = 100
_VERSIONS = 1000


class SecretServicer(secrets_pb2_grpc.SecretServiceServicer):
    """Serves secrets of the embedded provider."""

    def __init__(self, vault: Vault, database: Database) -> None:
        self._vault = vault
        self._database = database

    def CreateSecret(
        self, request: secrets_pb2.CreateSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        version = self._vault.create(
            request.name,
            data_of(request),
            caller(context).id,
            labels=request.labels,
            expires_at=moment(request, "expires_at"),
        )
        return version_message(version)

    def UpdateSecret(
        self, request: secrets_pb2.UpdateSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        version = self._vault.update(
            request.name,
            data_of(request),
            caller(context).id,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            allow_missing=request.allow_missing,
            labels=request.labels or None,
            expires_at=moment(request, "expires_at"),
        )
        return version_message(version)

    def StageSecretVersion(
        self, request: secrets_pb2.StageSecretVersionRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        expires_at = moment(request, "expires_at")
        return version_message(
            self._vault.stage(request.name, data_of(request), caller(context).id, expires_at=expires_at)
        )

    def PromoteSecretVersion(
        self, request: secrets_pb2.PromoteSecretVersionRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        return version_message(self._vault.promote(request.name, request.version))

    def DiscardSecretVersion(
        self, request: secrets_pb2.DiscardSecretVersionRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretVersion:
        return version_message(self._vault.discard(request.name, request.version))

    def EditSecret(
        self, request: secrets_pb2.EditSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretSummary:
        self._vault.edit(
            request.name,
            set_labels=request.set_labels,
            remove_labels=request.remove_labels,
            expires_at=moment(request, "expires_at"),
            never_expires=request.never_expires,
        )
        return summary_message(summary(self._database, request.name))

    def GetSecret(
        self, request: secrets_pb2.GetSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.GetSecretResponse:
        return value_message(self._vault.get(request.name, request.version, request.stage))

    def ListSecretVersions(
        self, request: secrets_pb2.ListSecretVersionsRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.ListSecretVersionsResponse:
        limit = request.page_size or _VERSIONS
        before = _before(_opened(request.page_token, "ListSecretVersions"))
        versions = self._vault.history(request.name, before=before, limit=limit)
        # Below version 1 there is none.
        more = len(versions) == limit and versions[-1].version > 1
        return secrets_pb2.ListSecretVersionsResponse(
            versions=map(version_message, versions),
            secret=summary_message(summary(self._database, request.name)),
            next_page_token=_token(str(versions[-1].version)) if more else "",
        )

    def ListSecrets(
        self, request: secrets_pb2.ListSecretsRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.ListSecretsResponse:
        principal = caller(context)
        found = search(
            self._database,
            _wanted(request),
            visible=lambda name: principal.allows("secrets.list", f"secrets/{name}"),
            after=_opened(request.page_token, "ListSecrets"),
            limit=request.page_size or _PAGE_SIZE,
        )
        return secrets_pb2.ListSecretsResponse(
            secrets=map(summary_message, found.secrets), folders=found.folders, next_page_token=_token(found.next)
        )

    def DeleteSecret(
        self, request: secrets_pb2.DeleteSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.DeleteSecretResponse:
        self._vault.delete(request.name, request.versions)
        return secrets_pb2.DeleteSecretResponse(name=request.name)

    def UndeleteSecret(
        self, request: secrets_pb2.UndeleteSecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.SecretSummary:
        self._vault.undelete(request.name, request.versions)
        return summary_message(summary(self._database, request.name))

    def DestroySecret(
        self, request: secrets_pb2.DestroySecretRequest, context: grpc.ServicerContext
    ) -> secrets_pb2.DestroySecretResponse:
        destroyed = self._vault.destroy(request.name, request.versions)
        return secrets_pb2.DestroySecretResponse(name=request.name, destroyed_versions=destroyed)


def _wanted(request: secrets_pb2.ListSecretsRequest) -> Wanted:
    return Wanted(
        prefix=request.prefix,
        by_folder=request.by_folder,
        words=request.query.split(),
        labels=_labels(request.label),
        deleted=request.show_deleted,
        written_before=moment(request, "written_before"),
    )


def _labels(wanted: Sequence[str]) -> dict[str, str | None]:
    """`KEY=VALUE` or `KEY` each."""
    pairs = (label.partition("=") for label in wanted)
    return {key: value if equals else None for key, equals, value in pairs}


def _token(last: str) -> str:
    return base64.urlsafe_b64encode(last.encode()).decode()


def _opened(token: str, method: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenInvalid(method) from None


def _before(text: str) -> int:
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PageTokenInvalid("ListSecretVersions")
    return int(text or 0)
