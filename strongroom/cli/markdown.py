"""Cards and readmes, read from files."""

from pathlib import Path

from strongroom.cli.session import misused

_LARGEST = 65_536


def read_markdown(file: Path) -> str:
    """A card's or readme's text. Ends the command if it can't be one."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        misused(f"{file} is no text that can be read ({type(error).__name__})")
    if len(data) > _LARGEST:
        misused(f"{file} is larger than 64 KiB")
    return text
