"""Whom a client believes who a server is: gRPC's own list of authorities, or the file that the caller names."""

import os
from pathlib import Path

import grpc

from strongroom.errors import LocalFileError

CA_FILE = "STRONGROOM_CA_FILE"
_MOST_BYTES = 1 << 20
_BEGIN = b"-----BEGIN CERTIFICATE-----"


def channel_credentials(ca_file: Path | str | None) -> grpc.ChannelCredentials:
    """What https needs; without a file, STRONGROOM_CA_FILE counts. Raises LocalFileError."""
    named = ca_file or os.environ.get(CA_FILE)
    return grpc.ssl_channel_credentials(_read(Path(named)) if named else None)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_BYTES)
    except OSError as error:
        message = f"{file} can't be read: {error.strerror}. It should be the ca.pem of the Strongroom that you call."
        raise LocalFileError(message, reason="CA_FILE_UNREADABLE") from None
    if _BEGIN not in content:
        message = f"{file} holds no certificate in PEM. It should be the ca.pem of the Strongroom that you call."
        raise LocalFileError(message, reason="CA_FILE_INVALID")
    return content
