"""The class of the Secret Management API, over Strongroom's services (docs/secret-manager.md).

    from strongroom import CloudProviderFactory, SecretManager

    factory = CloudProviderFactory()
    with SecretManager(config, {"aws": factory.create_provider("aws", aws_config)}) as secret_manager:
        secret_manager.create_secret("api-keys", {"openai": "sk-…"})
        secret_manager.upload_model_weights("llama-7b", "./models/llama-7b")

What fails is logged with its reason, and the answer is False, or an empty dictionary. With `strict=True` it raises a
`strongroom.errors.StrongroomError` instead.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToDict

from strongroom import expectations, profiles
from strongroom.client import Client
from strongroom.cloud_providers import CloudProvider
from strongroom.errors import FailedPrecondition, LocalFileError, NotFound, PermissionDenied, StrongroomError
from strongroom.expectations import Service
from strongroom.profiles import KeptSession, Profile
from strongroom.secret_options import ServiceOptions, parse, refused
from strongroom.secrets.v1 import rotations_pb2

_log = logging.getLogger("strongroom.secret_manager")
# What is told of a secret that rotates.
_STATUS = ("rotator", "schedule", "time_zone", "state", "next_run_at", "retry_at", "last_success_at", "failures")

T = TypeVar("T")


class SecretManager:
    """Secrets and model weights across clouds. `start` it, or use it as a context manager.

    Args:
        config: the options of the document, with the key `secrets` around them or without; under `strongroom` where the
            service is: `url`, and `api_key` or `token`, and the `manager` of the weights. What is not there say
            STRONGROOM_URL and STRONGROOM_API_KEY, or the profile that `strongroom login` keeps.
        cloud_providers: by the names that the program uses for them.
        strict: raise errors.

    Raises InvalidArgument for options that are unknown, or can't be obeyed.
    """

    def __init__(
        self, config: Mapping[str, Any], cloud_providers: Mapping[str, CloudProvider], *, strict: bool = False
    ) -> None:
        self._options = parse(config)
        self._clouds = dict(cloud_providers)
        if not all(isinstance(cloud, CloudProvider) for cloud in self._clouds.values()):
            raise refused("cloud_providers are made by CloudProviderFactory().create_provider(KIND, CONFIGURATION).")
        self._strict = strict
        self._running: Client | None = None
        self._service = Service()

    def __repr__(self) -> str:
        return f"SecretManager(cloud_providers={sorted(self._clouds)}, strict={self._strict})"

    def start(self) -> None:
        """Connects, and says what the service lacks of what the options and cloud providers expect."""
        if self._running is not None:
            return
        try:
            self._attempt("Starting", self._start, None)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the connection."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def __enter__(self) -> "SecretManager":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def get_secret(self, secret_name: str, provider_name: str | None = None) -> dict[str, Any]:
        """The fields of a secret: of the primary, or of one provider. Empty if there is none."""

        def read() -> dict[str, Any]:
            if provider_name is None:
                return self._client.secrets.value(secret_name)
            return self._client.providers.at(self._provider(provider_name)).value(secret_name)

        return self._attempt(f"Reading the secret {secret_name!r}", read, {})

    def create_secret(self, secret_name: str, secret_data: Mapping[str, Any], provider_name: str | None = None) -> bool:
        """Writes a new secret: to the primary, which its replicas follow, or to one provider alone."""

        def create() -> bool:
            if provider_name is None:
                self._client.secrets.create(secret_name, secret_data)
            else:
                self._client.providers.at(self._provider(provider_name)).create(secret_name, secret_data)
            return True

        return self._attempt(f"Creating the secret {secret_name!r}", create, False)

    def update_secret(self, secret_name: str, secret_data: Mapping[str, Any], provider_name: str | None = None) -> bool:
        """Replaces the fields of a secret by these: in the primary, which its replicas follow, or in one provider."""

        def update() -> bool:
            if provider_name is None:
                self._client.secrets.put(secret_name, secret_data, allow_missing=False)
            else:
                named = self._client.providers.at(self._provider(provider_name))
                named.put(secret_name, secret_data, allow_missing=False)
            return True

        return self._attempt(f"Updating the secret {secret_name!r}", update, False)

    def get_rotation_status(self) -> dict[str, Any]:
        """How secrets rotate: those that the caller may list.

        `enabled`: whether one has a schedule; `next_run_at`: when the next one rotates, in RFC 3339, or None;
        `secrets`: name → `rotator`, `schedule`, `time_zone`, `state`, `next_run_at`, `retry_at`, `last_success_at`,
        `failures`.
        """

        def status() -> dict[str, Any]:
            secrets = {rotation.name: _shown(rotation) for rotation in self._client.secret_rotation.list()}
            turns = [shown["next_run_at"] for shown in secrets.values() if shown["next_run_at"]]
            enabled = any(shown["schedule"] for shown in secrets.values())
            return {"enabled": enabled, "next_run_at": min(turns, default=None), "secrets": secrets}

        return self._attempt("Asking for rotations", status, {})

    def upload_model_weights(
        self, model_name: str, local_path: str | os.PathLike[str], version: str | None = None
    ) -> bool:
        """Uploads a file or folder as a new version, named after the time if it has no name. Replicas follow."""

        def upload() -> bool:
            self._client.models.push(model_name, Path(local_path), version=version or "", manager=self._manager)
            return True

        return self._attempt(f"Uploading {model_name!r}", upload, False)

    def download_model_weights(
        self,
        model_name: str,
        local_path: str | os.PathLike[str],
        version: str | None = None,
        preferred_provider: str | None = None,
    ) -> bool:
        """Downloads a version, the latest if None, into the folder `local_path`, and checks the SHA-256 of every file.

        A single file is called `local_path` itself if that ends as the file does, such as in `.safetensors`. The
        preferred provider is asked first; where it fails the others are.
        """

        def download() -> bool:
            found = self._client.models.show(model_name, version or "latest", manager=self._manager)
            self._client.models.pull(
                model_name,
                _destination(os.fspath(local_path), [file.path for file in found.files]),
                version=found.version,
                manager=self._manager,
                provider=self._service.store_called(preferred_provider, self._clouds) if preferred_provider else "",
            )
            return True

        return self._attempt(f"Downloading {model_name!r}", download, False)

    def list_available_models(self) -> dict[str, list[str]]:
        """The models that the caller may read, each with its versions, newest first."""

        def models() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for model in self._client.models.list(manager=self._manager):
                with suppress(NotFound):  # deleted since
                    versions = self._client.models.versions(model.name, manager=self._manager)
                    found[model.name] = [one.version for one in versions]
            return found

        return self._attempt("Listing models", models, {})

    def delete_model_weights(self, model_name: str, version: str, delete_all_providers: bool = True) -> bool:
        """Deletes a version and destroys its key; or its weights in the primary alone, if replicas have all of them."""

        def delete() -> bool:
            only = not delete_all_providers
            self._client.models.delete(model_name, version, manager=self._manager, primary_only=only)
            return True

        return self._attempt(f"Deleting {model_name!r}, version {version!r}", delete, False)

    def rotate_model_weights_encryption(self, model_name: str | None = None) -> bool:
        """Writes the weights of a model, or of all models, anew under new keys, and waits until that is done.

        For all models the key that wraps theirs is replaced first. Versions behind an access code stay as they are, and
        are named in the log.
        """

        def rotate() -> bool:
            rotation = self._client.rotation
            if not model_name:
                rotation.rotate(self._manager)
            job = rotation.finished(rotation.reencrypt(self._manager, model=model_name or ""))
            if job.state != "done":
                raise StrongroomError(job.error or "The weights were not written anew.", reason="REENCRYPTION_FAILED")
            if job.skipped_versions:
                _log.warning("Protected by an access code, so left as they are: %s", ", ".join(job.skipped_versions))
            return True

        return self._attempt(
            f"Rotating the encryption of {model_name!r}" if model_name else "Rotating the encryption of all models",
            rotate,
            False,
        )

    @property
    def _client(self) -> Client:
        if self._running is None:
            raise FailedPrecondition("The secret manager is not running: call start().", reason="NOT_STARTED")
        return self._running

    @property
    def _manager(self) -> str:
        return self._options.strongroom.manager

    def _provider(self, name: str) -> str:
        return self._service.provider_called(name, self._clouds)

    def _attempt(self, what: str, attempt: Callable[[], T], otherwise: T) -> T:
        try:
            try:
                return attempt()
            except OSError as error:
                message = f"{error.filename or 'A file'} can't be used: {error.strerror}."
                raise LocalFileError(message, reason="FILE_UNUSABLE") from None
        except StrongroomError as error:
            if self._strict:
                raise
            _log.error("%s failed: %s (%s)", what, error.message, error.reason or error.code)
            return otherwise

    def _start(self) -> None:
        profile = _profile(self._options.strongroom)
        session = KeptSession(profile.url, profile.ca_file) if profile.session is not None else None
        self._running = Client(
            profile.url, api_key=profile.api_key, token=profile.token, session=session, ca_file=profile.ca_file
        )
        for line in expectations.elsewhere(self._options):
            _log.info("%s", line)
        try:
            self._service = _seen(self._running)
        except PermissionDenied:
            _log.info("What the service has can't be looked at: that needs the permission system.maintain.")
        else:
            for line in expectations.half_met(self._clouds, self._service):
                _log.info("%s", line)
            self._complain(list(expectations.unmet(self._options, self._clouds, self._service)))
        if self._options.rotation.enabled and not self.get_rotation_status().get("enabled"):
            _log.warning(
                "rotation.enabled: no secret rotates yet. Each needs a rotator that knows where its value is used: "
                "strongroom secrets rotation set NAME --rotator … --schedule … (docs/rotation.md)."
            )

    def _complain(self, problems: Sequence[str]) -> None:
        if problems and self._strict:
            raise FailedPrecondition(" ".join(problems), code="FAILED_PRECONDITION", reason="SERVICE_LACKS")
        for line in problems:
            _log.warning("%s", line)


def _seen(client: Client) -> Service:
    """What the service has. Raises PermissionDenied."""
    providers = {one.name: one.kind for one in client.providers.show()}
    return Service(providers, {store.name: store.kind for store in client.stores.show().stores})


def _profile(given: ServiceOptions) -> Profile:
    """Where the service is, and as whom. Raises LocalFileError.

    A credential of the environment, or of the profile, goes only to the address that stands there with it.
    """
    if given.url and (given.api_key or given.token):
        return Profile(given.url, given.api_key, given.token)
    around = profiles.current()
    if given.api_key or given.token:
        return Profile(around.url, given.api_key, given.token, ca_file=around.ca_file)
    if not given.url or around.goes_to(given.url):
        return around
    alone = profiles.overriding() and not os.environ.get("STRONGROOM_URL")
    return replace(around, url=given.url) if alone else Profile(given.url)


def _shown(rotation: rotations_pb2.SecretRotation) -> dict[str, Any]:
    fields = MessageToDict(rotation, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {name: fields.get(name) for name in _STATUS}


def _destination(local_path: str, files: Sequence[str]) -> str:
    """Weights go into a folder, unless they are one file and the path is called as one of its kind."""
    path = Path(local_path)
    suffix = Path(files[0]).suffix if len(files) == 1 else ""
    as_file = suffix and path.suffix == suffix and not path.is_dir()
    return local_path if as_file or not local_path else f"{local_path}/"
