"""A program that keeps to the limits: the client waits when it is told to, tries again, and gives up in time.

Needs STRONGROOM_URL and STRONGROOM_API_KEY, or AUTH_TOKEN for the fixed token of an installation.
"""

import os
import sys

from strongroom import Client
from strongroom.errors import CircuitOpen, RateLimited, StrongroomError

URL = os.environ.get("STRONGROOM_URL", "http://127.0.0.1:8080")


def main() -> None:
    # Calls that the rate limit refuses are made again when the server says so, and those that can be repeated without
    # harm also while it is away: with growing random waits. Every call has a deadline.
    with Client(URL, api_key=os.environ.get("STRONGROOM_API_KEY"), token=os.environ.get("AUTH_TOKEN")) as client:
        try:
            health = client.admin.health()
            caller = client.tokens.caller()
        except CircuitOpen as error:
            # Five calls in a row reached nobody: this one was not made, and error.retry_after says when one is.
            sys.exit(f"nobody is there: {error.message}")
        except RateLimited as error:
            sys.exit(f"the limit is used up for {error.retry_after} s")
        except StrongroomError as error:
            sys.exit(f"{error.reason}: {error.message}")
        print(f"{URL} is {health.status}, and this is {caller.name}")
        for model in client.models.list():
            print(model.name, model.latest_version)


if __name__ == "__main__":
    main()
