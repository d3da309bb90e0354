"""What is served to browsers and generators: the OpenAPI document, two pages that show it, what those load."""

from dataclasses import dataclass
from importlib import resources
from typing import Self

from services.shared.errors import NotFound

# Scripts from here alone, nothing from elsewhere, no frame around a page in which a key is typed (CSP Level 3). Both
# pages make styles as they go; a style can't send a key anywhere, because nothing else may be loaded or asked.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Names of vendored assets carry their version, so what is kept under them never changes.
_KEPT = "public, max-age=31536000, immutable"
_FRESH = "no-cache"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
_HTML = "text/html; charset=utf-8"


class AssetNotFound(NotFound):
    reason = "ASSET_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("The pages have no asset of this name.")


@dataclass(frozen=True)
class Document:
    """A file and how it is served."""

    content_type: str
    data: bytes
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Documents:
    """All that is served, read once."""

    openapi: Document
    docs: Document
    redoc: Document
    assets: dict[str, Document]

    @classmethod
    def load(cls) -> Self:
        pages = resources.files("services.auth.pages")
        return cls(
            openapi=_document("application/json", (pages / "openapi.json").read_bytes(), _FRESH),
            docs=_document(_HTML, (pages / "docs.html").read_bytes(), _FRESH),
            redoc=_document(_HTML, (pages / "redoc.html").read_bytes(), _FRESH),
            assets={
                file.name: _document(_TYPES[suffix], file.read_bytes(), _KEPT if _versioned(file.name) else _FRESH)
                for file in (pages / "assets").iterdir()
                for suffix in _TYPES
                if file.name.endswith(suffix)
            },
        )

    def asset(self, name: str) -> Document:
        """Raises AssetNotFound."""
        try:
            return self.assets[name]
        except KeyError:
            raise AssetNotFound from None


def _document(content_type: str, data: bytes, cache: str) -> Document:
    headers = [("cache-control", cache), ("x-content-type-options", "nosniff")]
    if content_type == _HTML:
        headers += [("content-security-policy", CONTENT_SECURITY_POLICY), ("referrer-policy", "no-referrer")]
    return Document(content_type, data, tuple(headers))


def _versioned(name: str) -> bool:
    return any(character.isdigit() for character in name)
