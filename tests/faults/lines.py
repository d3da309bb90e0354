"""`python -m tests.faults.lines`: TCP relays in a process of their own, which are slowed, cut and silenced.

Standard input: first the lines as one JSON object, `{name: [port, target port]}`, all on loopback; then orders,
`{"line": name, "state": state}`. Each is answered with an empty line.
"""

import asyncio
import json
import sys
from contextlib import suppress

# `pass` relays, `slow` keeps every piece for a while, `cut` ends connections and takes no others, `silent` keeps them
# and what is sent on them.
STATES = ("pass", "slow", "cut", "silent")
SLOW_SECONDS = 0.15
_PIECE = 64 << 10


class Line:
    """One relay."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._state = "pass"
        self._goes = asyncio.Event()
        self._goes.set()
        self._open: set[asyncio.StreamWriter] = set()

    def turn(self, state: str) -> None:
        self._state = state
        if state == "silent":
            self._goes.clear()
        else:
            self._goes.set()
        if state == "cut":
            for writer in self._open:
                writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._goes.wait()
        way = await self._way()
        if way is None:
            writer.transport.abort()
            return
        onward, back = way
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(self._relay(reader, back), self._relay(onward, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _way(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        with suppress(OSError):
            return None if self._state == "cut" else await asyncio.open_connection("127.0.0.1", self._target)
        return None

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(_PIECE):
                if self._state == "slow":
                    await asyncio.sleep(SLOW_SECONDS)
                await self._goes.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


async def main() -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    lines = {}
    for name, (port, target) in json.loads(await orders.readline()).items():
        lines[name] = Line(target)
        await asyncio.start_server(lines[name].accept, "127.0.0.1", port)
    sys.stdout.write("\n")
    sys.stdout.flush()
    while order := await orders.readline():
        wanted = json.loads(order)
        lines[wanted["line"]].turn(wanted["state"])
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
