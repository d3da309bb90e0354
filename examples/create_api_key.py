"""Creates an API key by asking: name, purpose, permissions, scopes, expiry. The same as `strongroom keys create`.

Who asks is whom STRONGROOM_URL and STRONGROOM_API_KEY name, or who ran `strongroom login`.
"""

import sys

from strongroom.cli import key_wizard
from strongroom.cli.session import connected


def main() -> None:
    with connected() as client:
        created = key_wizard.create(client)
    # Questions went to standard error, so `KEY=$(python create_api_key.py)` catches the key alone.
    print(f"Created {created.name} ({created.id}). The key is shown this once:", file=sys.stderr)
    print(created.key)


if __name__ == "__main__":
    main()
