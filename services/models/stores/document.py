"""The Secret Management API's YAML as a configuration of stores (docs/secret-manager.md).

    secrets:
      model_weights: {storage_type: aws, s3_bucket: llm-models, gcs_bucket: llm-models, sync_enabled: true}

`storage_type` is the primary, the other buckets are replicas. What the document has no option for is found where each
cloud's own tools look: credentials, AWS_REGION, AZURE_STORAGE_ACCOUNT.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from services.shared.configuration import ConfigurationError
from strongroom.errors import InvalidArgument
from strongroom.secret_options import WeightOptions, is_documented, parse

_log = structlog.get_logger()
_ACCOUNT = "AZURE_STORAGE_ACCOUNT"
_BUCKETS = {"aws": "s3_bucket", "gcp": "gcs_bucket", "azure": "azure_container"}


def translated(fields: Any, local: Path, environment: Mapping[str, str]) -> Any:
    """The fields of a configuration of stores; what is not in the document's form as it is. ConfigurationError.

    Args:
        local: the folder of the store for `storage_type: local`.
    """
    if not is_documented(fields):
        return fields
    try:
        options = parse(fields)
    except InvalidArgument as error:
        raise ConfigurationError(error.message) from None
    weights = options.model_weights
    primary = weights.storage_type or "local"
    stores, left_out = _stores(weights, primary, local, environment)
    replicas = [name for name in stores if name != primary] if weights.sync_enabled else []
    found: dict[str, Any] = {"primary": primary, "replicas": replicas}
    found["stores"] = {name: store for name, store in stores.items() if name in (primary, *replicas)}
    if weights.cache_enabled:
        found["cache"] = {"path": weights.cache_directory, "max_size_gb": weights.cache_max_size_gb}
    _log.info(
        "STRONGROOM_STORES is a file of the Secret Management API, and is obeyed",
        primary=primary,
        replicas=replicas,
        left_out=left_out,
        vault="is for STRONGROOM_PROVIDERS" if options.vault.enabled else "off",
    )
    return found


def _stores(
    weights: WeightOptions, primary: str, local: Path, environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The stores by name, and what can't be one and why. Raises ConfigurationError if that is the primary."""
    stores: dict[str, Any] = {}
    if primary == "local":
        stores["local"] = {"kind": "local", "path": str(local)}
    elif not getattr(weights, _BUCKETS[primary]):
        raise ConfigurationError(f"model_weights.{_BUCKETS[primary]}: storage_type is {primary}, so name it")
    if weights.s3_bucket:
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        stores["aws"] = {"kind": "s3", "bucket": weights.s3_bucket} | ({"region": region} if region else {})
    if weights.gcs_bucket:
        stores["gcp"] = {"kind": "gcs", "bucket": weights.gcs_bucket}
    if not weights.azure_container:
        return stores, []
    if account := environment.get(_ACCOUNT):
        endpoint = f"https://{account}.blob.core.windows.net"
        stores["azure"] = {"kind": "azure", "container": weights.azure_container, "endpoint": endpoint}
        return stores, []
    missing = f"model_weights.azure_container: {_ACCOUNT} shall say in which account it is"
    if primary == "azure":
        raise ConfigurationError(missing)
    return stores, [missing]
