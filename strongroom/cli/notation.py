"""How grants, quotas and lengths of time are written on the command line."""

import re
from typing import TYPE_CHECKING

from strongroom.cli.session import misused

if TYPE_CHECKING:
    from strongroom.auth.v1.api_keys_pb2 import Quota
    from strongroom.auth.v1.tokens_pb2 import Grant

USAGE_CLASSES = ("train", "predict", "upload", "other")
_PERIODS = ("minute", "hour", "day")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PERMISSION = re.compile(r"\*|[a-z]+\.(\*|[a-z]+)")
_QUOTA = re.compile(r"([a-z]+)=([0-9]{1,10})/([a-z]+)")
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")


def grant(effect: str, text: str) -> "Grant":
    """`models.read,models.write on managers/fraud/**`; without `on …` everywhere. Ends the command if it is not so."""
    from strongroom.auth.v1.tokens_pb2 import Grant

    permissions, on, resources = text.partition(" on ")
    named, places = _listed(permissions), _listed(resources)
    if not named or (on and not places):
        misused(f"--{effect} {text!r} is not of the form 'PERMISSION[,PERMISSION] on RESOURCE[,RESOURCE]'")
    for permission in named:
        if not _PERMISSION.fullmatch(permission):
            misused(f"--{effect}: {permission!r} is no permission; one looks like models.read or secrets.*")
    return Grant(effect=effect, permissions=named, resources=places)


def quota(text: str) -> "Quota":
    """`upload=10/hour`. Ends the command if it is not so."""
    from strongroom.auth.v1.api_keys_pb2 import Quota

    parts = _QUOTA.fullmatch(text)
    if parts is None or parts[1] not in USAGE_CLASSES or parts[3] not in _PERIODS or not 1 <= int(parts[2]) <= 10**9:
        misused(
            f"--quota {text!r} is not of the form CLASS=NUMBER/PERIOD, such as upload=10/hour; "
            f"classes: {', '.join(USAGE_CLASSES)}; periods: {', '.join(_PERIODS)}"
        )
    return Quota(usage_class=parts[1], requests=int(parts[2]), per=parts[3])


def seconds(option: str, text: str) -> int:
    """`90`, `45s`, `30m`, `12h`, `1d`. Ends the command if it is not so."""
    parts = _DURATION.fullmatch(text)
    if parts is None:
        misused(f"{option} {text!r} is no length of time; one looks like 1d, 12h, 30m or 45s")
    return int(parts[1]) * _SECONDS[parts[2] or "s"]


def spelled(line: "Grant") -> str:
    """A grant as it is read: `allow models.read on managers/fraud/**`."""
    return f"{line.effect} {', '.join(line.permissions)} on {', '.join(line.resources) or 'everything'}"


def _listed(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text.strip()) if word]
