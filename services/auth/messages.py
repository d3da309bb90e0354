"""Grants on the wire."""

from typing import cast

from services.auth.permission_sets import EVERYWHERE
from services.shared.identity import Effect, Grant
from strongroom.auth.v1 import tokens_pb2 as pb


def grant_message(grant: Grant) -> pb.Grant:
    """The grant as a message."""
    return pb.Grant(effect=grant.effect, permissions=grant.permissions, resources=grant.resources)


def grant(message: pb.Grant) -> Grant:
    """The message as a grant; validation has looked at the effect. No resources are all of them."""
    resources = tuple(dict.fromkeys(message.resources)) or (EVERYWHERE,)
    return Grant(cast("Effect", message.effect), tuple(dict.fromkeys(message.permissions)), resources)
