"""Secrets that people choose and the environment gives: short, unsendable and well-known ones are refused."""

_MIN_CHARACTERS = 16
# Envoy's limit for all headers together is 60 KiB; nobody needs a hundredth of it.
MAX_CHARACTERS = 512
# Values that documents and examples show, so that everybody knows them.
_KNOWN = (
    *("dev_key", "change-this-in-production", "your_secret_key", "dev-token-12345", "changeme", "change-me"),
    *("your-secure-token-here", "your-auth-token", "your_api_key_here"),
)


def check(value: str, what: str) -> str:
    """The value, if it may be used as a secret. Raises ValueError, which says `what` it is and not the value."""
    if len(value) < _MIN_CHARACTERS or len(value) > MAX_CHARACTERS:
        raise ValueError(f"{what} needs {_MIN_CHARACTERS} to {MAX_CHARACTERS} characters.")
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError(f"{what} must be printable ASCII without blanks at its ends, as a header can carry.")
    if any(known in value.lower().replace(" ", "") for known in _KNOWN):
        raise ValueError(f"{what} is a well-known example. Take a random one: openssl rand -hex 24")
    return value
