"""A program with an event loop: many calls at a time, weights on their way meanwhile, each with a limit of its own.

Needs STRONGROOM_URL and STRONGROOM_API_KEY.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from strongroom import AsyncClient
from strongroom.errors import StrongroomError

URL = os.environ.get("STRONGROOM_URL", "http://127.0.0.1:8080")


async def main() -> None:
    async with AsyncClient(URL, api_key=os.environ.get("STRONGROOM_API_KEY")) as client:
        names = [f"example-async/{number}" for number in range(10)]
        await asyncio.gather(*(client.secrets.put(name, {"token": name}) for name in names))
        values = await asyncio.gather(*(client.secrets.value(name) for name in names))
        print(f"{len(values)} secrets at a time")
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder, "weights.bin")
            weights.write_bytes(b"weights" * 500_000)
            # In a thread, which ends when time is up; run again, the push goes on where it was.
            async with asyncio.timeout(60):
                pushed = await client.models.push("example-async", weights)
        print(f"pushed {pushed.version.version}")
        print([model.name async for model in client.models.list() if model.name == "example-async"])


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except StrongroomError as error:
        sys.exit(f"{error.reason}: {error.message}")
