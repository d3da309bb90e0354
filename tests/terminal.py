"""The command line as it is typed, run inside the test's process: many commands a second."""

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from strongroom.cli import main
from tests.stack import Stack


@dataclass(frozen=True)
class Done:
    """What a command left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class Terminal:
    """Where commands are typed: no terminal is attached, as in a script."""

    url: str
    api_key: str
    home: str = "/nonexistent"

    @classmethod
    def of(cls, stack: Stack, api_key: str | None = None) -> "Terminal":
        return cls(stack.url, stack.admin_key if api_key is None else api_key)

    def __call__(self, *arguments: object, stdin: str = "", **variables: str) -> Done:
        """Runs `strongroom ARGUMENTS…`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
        kept |= {"STRONGROOM_URL": self.url, "STRONGROOM_API_KEY": self.api_key, "XDG_CONFIG_HOME": self.home}
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, kept | variables, clear=True),
            patch.object(sys, "argv", ["strongroom", *map(str, arguments)]),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                return Done(int(end.code or 0), out.getvalue(), err.getvalue())
        raise AssertionError("main always exits")
