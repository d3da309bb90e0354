"""TLS of the gateway, in Envoy's words: what callers are shown, and what it shows the services.

Envoy reads certificates from documents (SDS) in a folder of the gateway's own, and again when one is replaced
(https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret#key-rotation). Each holds certificate and key
together, and is written once they were found to belong together: so whoever replaces files, by whatever means and in
whatever order, never has a half of a change served. Connections that are there go on.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strongroom.certificates import (
    GATEWAY,
    CertificateError,
    Pair,
    as_pem,
    name_of,
    read_certificates,
    read_pair,
    versions,
)
from strongroom.local.authority import EDGE, names_in
from strongroom.local.errors import StartError
from strongroom.local.layout import write_private
from strongroom.local.pki import DIRECTORY, Pki

CERTIFICATE, KEY = "STRONGROOM_TLS_CERT", "STRONGROOM_TLS_KEY"
SWITCH = "STRONGROOM_TLS"

# TLS 1.2 with forward secrecy and authenticated encryption alone (RFC 9325, section 4.2), as all of TLS 1.3 is.
_SUITES = [
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
]
_PARAMETERS = {
    "tls_minimum_protocol_version": "TLSv1_2",
    "tls_maximum_protocol_version": "TLSv1_3",
    "cipher_suites": _SUITES,
}
_MODELS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_SECONDS = 1.0
_RENEWAL_SECONDS = 60.0


@dataclass(frozen=True)
class Sources:
    """Where the certificates come from. Without `edge` callers speak in the clear, without `pki` the parts do."""

    edge: tuple[Path, Path | None] | None = None
    pki: Pki | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str], pki: Pki | None) -> "Sources":
        """What the environment says; the edge's certificate is that of `pki` unless it names another.

        Raises StartError.
        """
        certificate, key = environment.get(CERTIFICATE, ""), environment.get(KEY, "")
        if key and not certificate:
            raise StartError(f"{KEY} is set and {CERTIFICATE} is not: give the certificate too.")
        switch = environment.get(SWITCH, "")
        if switch not in ("", "off"):
            raise StartError(f"{SWITCH} is `off`, where something in front of the gateway speaks TLS, or not set.")
        if switch == "off":
            if certificate:
                raise StartError(f"{SWITCH} is off and {CERTIFICATE} is set: take one of them away.")
            return cls(None, pki)
        if certificate:
            return cls((Path(certificate).absolute(), Path(key).absolute() if key else None), pki)
        return cls((pki.of(EDGE), None) if pki else None, pki)


def pki_of(environment: Mapping[str, str], usual: Path | None = None) -> Pki | None:
    """The certificates of the installation: in the folder that is named, else in `usual` if there are any."""
    named = environment.get(DIRECTORY)
    if named:
        return Pki(Path(named).absolute())
    pki = Pki(usual) if usual else None
    return pki if pki and pki.exists else None


class GatewayTls:
    """The documents in `folder`, kept in step with the files that they are made of.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, sources: Sources, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._folder = folder
        self._clock = clock
        self._looked = -_SECONDS
        self._seen: dict[str, object] = {}
        # What was served before may still be shown by a gateway that has not read the new document.
        self._served: list[bytes] = []
        self._names: list[str] = []

    @property
    def at_edge(self) -> bool:
        """Whether callers speak TLS."""
        return self._sources.edge is not None

    def start(self) -> None:
        """Writes the documents. Raises StartError."""
        for stale in self._folder.glob("*.json"):
            stale.unlink()  # of a gateway before, perhaps with a key that nobody serves any more
        if complaints := self._write():
            raise StartError(complaints[0])

    def refresh(self) -> list[str]:
        """Writes those anew whose files have changed, once a second at most. What can't be used is told once and stays
        out.
        """
        if self._clock() - self._looked < _SECONDS:
            return []
        return self._write()

    def shown(self) -> list[bytes]:
        """The certificates (DER) that callers may be shown now."""
        return self._served

    @property
    def names(self) -> list[str]:
        """Hosts for which the edge's certificate stands, wildcards left out."""
        return [name for name in self._names if "*" not in name]

    @property
    def ca_file(self) -> Path | None:
        """What callers trust, where it is an authority of ours that made the edge's certificate."""
        pki, edge = self._sources.pki, self._sources.edge
        return pki.authorities if pki and edge and edge[0] == pki.of(EDGE) else None

    @property
    def pki(self) -> Pki | None:
        """The certificates of the parts."""
        return self._sources.pki

    @property
    def pki_dir(self) -> Path | None:
        """Where services find theirs."""
        return self.pki.folder if self.pki else None

    def listener(self) -> dict[str, Any] | None:
        """The transport socket of the edge."""
        if not self.at_edge:
            return None
        context = {
            "@type": f"{_MODELS}.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": _PARAMETERS,
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [self._reference(EDGE)],
            },
        }
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}

    def upstream(self, service: str) -> dict[str, Any] | None:
        """The transport socket of the connections to a service: whoever answers there must be that service."""
        if self._sources.pki is None:
            return None
        name = name_of(service)
        matcher = {"san_type": "DNS", "matcher": {"exact": name}}
        context = {
            "@type": f"{_MODELS}.UpstreamTlsContext",
            "sni": name,
            "common_tls_context": {
                "tls_params": _PARAMETERS,
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": [self._reference(GATEWAY)],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": [matcher]},
                    "validation_context_sds_secret_config": self._reference("ca"),
                },
            },
        }
        return {"name": "envoy.transport_sockets.tls", "typed_config": context}

    def _write(self) -> list[str]:
        self._looked = self._clock()
        complaints = []
        for name, (files, make) in self._documents().items():
            seen = versions(*files)
            if self._seen.get(name) == seen:
                continue
            self._seen[name] = seen
            try:
                secret = make()
            except CertificateError as error:
                complaints.append(str(error))
            else:
                self._save(name, secret)
        return complaints

    def _documents(self) -> dict[str, tuple[list[Path], Callable[[], dict[str, Any]]]]:
        documents: dict[str, tuple[list[Path], Callable[[], dict[str, Any]]]] = {}
        if self._sources.pki:
            trusted, own = self._sources.pki.authorities, self._sources.pki.of(GATEWAY)
            documents["ca"] = [trusted], lambda: _validation(as_pem(read_certificates(trusted)))
            documents[GATEWAY] = [own], lambda: _certificate(read_pair(own))
        if self._sources.edge:
            certificate, key = self._sources.edge
            documents[EDGE] = [certificate, key or certificate], lambda: self._edge(read_pair(certificate, key))
        return documents

    def _edge(self, pair: Pair) -> dict[str, Any]:
        self._served = [pair.fingerprint, *self._served[:1]]
        self._names = names_in(pair.leaf)
        return _certificate(pair)

    def _save(self, name: str, secret: dict[str, Any]) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        resource = {"@type": f"{_MODELS}.Secret", "name": name, **secret}
        write_private(self._folder / f"{name}.json", json.dumps({"resources": [resource]}))

    def _reference(self, name: str) -> dict[str, Any]:
        path = self._folder / f"{name}.json"
        source = {"path": str(path), "watched_directory": {"path": str(self._folder)}}
        return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


class Upkeep:
    """Renews the certificates in time and hands what is new to the gateway. Call it each second.

    Args:
        tell: says one line to the user.
    """

    def __init__(
        self, tls: GatewayTls, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tls = tls
        self._tell = tell
        self._clock = clock
        self._renewed_at = clock()
        self._told = ""

    def __call__(self) -> None:
        if self._tls.pki and self._clock() - self._renewed_at >= _RENEWAL_SECONDS:
            self._renewed_at = self._clock()
            self._renew(self._tls.pki)
        for complaint in self._tls.refresh():
            self._tell(f"{complaint} The certificate before is served on.")

    def _renew(self, pki: Pki) -> None:
        try:
            if renewed := pki.renew():
                self._tell(f"renewed the certificates of {', '.join(renewed)}")
        except StartError as error:
            if str(error) != self._told:
                self._told = str(error)
                self._tell(self._told)


def _certificate(pair: Pair) -> dict[str, Any]:
    chain, key = ({"inline_string": text.decode()} for text in (pair.chain, pair.key))
    return {"tls_certificate": {"certificate_chain": chain, "private_key": key}}


def _validation(authorities: bytes) -> dict[str, Any]:
    return {"validation_context": {"trusted_ca": {"inline_string": authorities.decode()}}}
