"""ManagerService."""

from collections.abc import Callable, Iterator

import grpc
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from services.models import manager_access, multipart
from services.models.manager_catalog import ManagerCatalog, ManagerConfig, ManagerRecord
from services.models.manager_keys import ManagerKeys, Password
from services.models.manager_models import ManagerModels
from services.models.manager_removal import ManagerRemoval
from services.models.manager_saves import DEFAULT_LEVEL, ManagerSaves, SavedCopy
from services.models.messages import timestamp
from services.models.metrics import Metrics
from services.models.presence import Presence
from services.models.presented_code import access_code
from services.models.versions import Versions
from services.shared.call import caller
from strongroom.chunking import Buffer
from strongroom.models.v1 import managers_pb2 as pb
from strongroom.models.v1 import managers_pb2_grpc

_FORM_FIELD = "model_file"
_PAGE = 1000


class ManagerServicer(managers_pb2_grpc.ManagerServiceServicer):
    """Managers, and the models in them by path."""

    def __init__(
        self,
        catalog: ManagerCatalog,
        removal: ManagerRemoval,
        models: ManagerModels,
        saves: ManagerSaves,
        versions: Versions,
        keys: ManagerKeys,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._removal = removal
        self._models = models
        self._saves = saves
        self._versions = versions
        self._keys = keys
        self._metrics = metrics

    def CreateManager(
        self, request: pb.CreateManagerRequest, context: grpc.ServicerContext
    ) -> pb.CreateManagerResponse:
        manager_id = self._catalog.create(request.manager_id, _config(request))
        return pb.CreateManagerResponse(
            success=True,
            message=f"Manager created with ID: {manager_id}",
            details=pb.CreateManagerResponse.Details(manager_id=manager_id),
        )

    def ListManagers(self, request: pb.ListManagersRequest, context: grpc.ServicerContext) -> pb.ListManagersResponse:
        managers, token = self._list(context, request.page_size, request.page_token)
        return pb.ListManagersResponse(managers=map(_manager, managers), next_page_token=token)

    def MapManagers(self, request: pb.MapManagersRequest, context: grpc.ServicerContext) -> Struct:
        answer = Struct()
        token, more = "", True
        while more:
            managers, token = self._list(context, _PAGE, token)
            answer.update({manager.id: _summary(manager) for manager in managers})
            more = bool(token)
        return answer

    def CountManagers(
        self, request: pb.CountManagersRequest, context: grpc.ServicerContext
    ) -> pb.CountManagersResponse:
        managers, models = self._catalog.count()
        return pb.CountManagersResponse(count=managers, models=models)

    def GetManager(self, request: pb.GetManagerRequest, context: grpc.ServicerContext) -> pb.Manager:
        return _manager(self._catalog.get(request.manager_id, _may_read(context)))

    def DeleteManager(
        self, request: pb.DeleteManagerRequest, context: grpc.ServicerContext
    ) -> pb.DeleteManagerResponse:
        manager_access.require_on_all(caller(context), "models.delete", request.manager_id)
        if request.allow_in_use:
            # Else whoever may delete could empty aliases and stages that they may not touch.
            manager_access.require_on_all(caller(context), "models.alias", request.manager_id)
        self._removal.delete(request.manager_id, allow_in_use=request.allow_in_use)
        message = f"Manager {request.manager_id} deleted successfully"
        return pb.DeleteManagerResponse(success=True, message=message, details=pb.DeleteManagerResponse.Details())

    def SaveModel(self, request: pb.SaveModelRequest, context: grpc.ServicerContext) -> pb.SaveModelResponse:
        principal = caller(context)
        saved = self._saves.save(
            principal.id,
            request.manager_id,
            request.model_name,
            request.filepath,
            Presence(context).check,
            lambda name: manager_access.may(principal, "models.write", request.manager_id, name),
            access_code(context, request.access_code),
            request.compression_level if request.HasField("compression_level") else DEFAULT_LEVEL,
        )
        details = pb.SaveModelResponse.Details(
            model_name=saved.model_name,
            filepath=saved.filepath,
            encrypted=saved.encrypted,
            quantized=_copy(saved.copy) if saved.copy else None,
        )
        message = f"Model {saved.model_name} saved successfully"
        return pb.SaveModelResponse(success=True, message=message, details=details)

    def LoadModel(self, request: pb.LoadModelRequest, context: grpc.ServicerContext) -> pb.LoadModelResponse:
        visible = _visible(context, request.manager_id)
        loaded = self._models.load(
            request.manager_id, request.filepath, visible, access_code(context, request.access_code)
        )
        return pb.LoadModelResponse(
            success=True,
            message=f"Model {loaded.model_name} loaded successfully",
            details=pb.LoadModelResponse.Details(model_name=loaded.model_name, is_best_model=loaded.is_best),
        )

    def ListModelNames(
        self, request: pb.ListModelNamesRequest, context: grpc.ServicerContext
    ) -> pb.ListModelNamesResponse:
        visible = _visible(context, request.manager_id)
        names: list[str] = []
        token, more = "", True
        while more:
            models, token = self._versions.list_models(request.manager_id, _PAGE, token, visible)
            names += [model.name for model in models]
            more = bool(token)
        best = self._catalog.best_model(request.manager_id, visible)
        return pb.ListModelNamesResponse(models=names, best_model=_name_or_null(best))

    def VerifyModel(self, request: pb.VerifyModelRequest, context: grpc.ServicerContext) -> pb.VerifyModelResponse:
        visible = _visible(context, request.manager_id)
        result = self._models.verify(request.manager_id, request.filepath, visible, Presence(context).check)
        status = "encrypted" if result.encrypted else "unencrypted"
        return pb.VerifyModelResponse(filepath=request.filepath, is_valid=result.is_valid, encryption_status=status)

    def RotateKey(self, request: pb.RotateKeyRequest, context: grpc.ServicerContext) -> pb.RotateKeyResponse:
        password = Password(request.new_password) if request.HasField("new_password") else None
        receipt = self._keys.rotate(request.manager_id, password, requested_by=caller(context).id)
        details = pb.RotateKeyResponse.Details(
            using_password=receipt.using_password, timestamp=int(receipt.rotated_at.timestamp())
        )
        return pb.RotateKeyResponse(success=True, message="Encryption key rotated successfully", details=details)

    def RecordMetrics(
        self, request: pb.RecordMetricsRequest, context: grpc.ServicerContext
    ) -> pb.RecordMetricsResponse:
        recorded = self._metrics.record(request.manager_id, request.model_name, request.version, request.metrics)
        return pb.RecordMetricsResponse(metrics=recorded)

    def GetMetrics(self, request: pb.GetMetricsRequest, context: grpc.ServicerContext) -> pb.GetMetricsResponse:
        return pb.GetMetricsResponse(metrics=self._metrics.get(request.manager_id, request.model_name, request.version))

    def UploadModel(
        self, messages: Iterator[pb.UploadModelRequest], context: grpc.ServicerContext
    ) -> pb.UploadModelResponse:
        first = next(messages)
        presence = Presence(context)
        filename, body = _file(first, presence.until_end(messages))
        uploaded = self._models.upload(
            caller(context).id,
            first.manager_id,
            filename,
            body,
            _may_write(context, first.manager_id),
            presence.check,
            access_code(context),
        )
        name = uploaded.filepath.rpartition("/")[2]
        return pb.UploadModelResponse(
            success=True,
            message=f"Model {name} uploaded successfully and queued for loading",
            details=pb.UploadModelResponse.Details(filepath=uploaded.filepath, model_name=uploaded.model_name),
        )

    def _list(self, context: grpc.ServicerContext, page_size: int, page_token: str) -> tuple[list[ManagerRecord], str]:
        principal = caller(context)

        def visible(manager_id: str) -> bool:
            return manager_access.may_on_all(principal, "models.read", manager_id)

        return self._catalog.list(page_size, page_token, visible, _may_read(context))


def _may_read(context: grpc.ServicerContext) -> Callable[[str, str], bool]:
    principal = caller(context)
    return lambda manager_id, name: manager_access.may(principal, "models.read", manager_id, name)


def _visible(context: grpc.ServicerContext, manager_id: str) -> Callable[[str], bool]:
    principal = caller(context)
    return lambda name: manager_access.may(principal, "models.read", manager_id, name)


def _may_write(context: grpc.ServicerContext, manager_id: str) -> Callable[[str], None]:
    """Raises PermissionDenied unless the caller may write the model of this name, known only when its file comes."""
    principal = caller(context)
    return lambda name: manager_access.require(principal, "models.write", manager_id, name)


def _config(request: pb.CreateManagerRequest) -> ManagerConfig:
    """What the request names; the rest is as ManagerConfig has it."""
    named = {field.name: value for field, value in request.ListFields() if field.name != "manager_id" and value != ""}
    return ManagerConfig(**named)


def _file(first: pb.UploadModelRequest, messages: Iterator[pb.UploadModelRequest]) -> tuple[str, Iterator[Buffer]]:
    """Name and bytes of the file: in a form, or as they are."""

    def pieces() -> Iterator[Buffer]:
        yield first.body.data
        for message in messages:
            yield message.body.data

    if not multipart.is_form(first.body.content_type):
        return first.filename, pieces()
    file = multipart.form_file(first.body.content_type, pieces(), _FORM_FIELD)
    return file.filename, file.body


def _manager(manager: ManagerRecord) -> pb.Manager:
    config = vars(manager.config)
    return pb.Manager(
        manager_id=manager.id,
        models_count=manager.models_count,
        best_model=manager.best_model,
        created_at=timestamp(manager.created_at),
        **config,
    )


def _copy(copy: SavedCopy) -> pb.QuantizedCopy:
    return pb.QuantizedCopy(
        filepath=copy.filepath,
        size_bytes=copy.about.size,
        original_size_bytes=copy.about.original_size,
        tensors_quantized=copy.about.report.tensors_quantized,
        tensors_kept=copy.about.report.tensors_kept,
        max_error=copy.about.report.max_error,
        relative_error=copy.about.report.relative_error,
    )


def _summary(manager: ManagerRecord) -> dict[str, bool | str | int | None]:
    return {
        "encryption_enabled": manager.config.enable_encryption,
        "model_path": manager.config.model_path,
        "task_type": manager.config.task_type.upper(),
        "models_count": manager.models_count,
        "best_model": manager.best_model or None,
    }


def _name_or_null(name: str) -> Value:
    return Value(string_value=name) if name else Value(null_value=NULL_VALUE)
