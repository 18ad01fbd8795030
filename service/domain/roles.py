"""Who may do what. Three roles, each of which may do all that the one before it may."""

from dataclasses import dataclass
from enum import StrEnum

from service.errors import Forbidden


class Role(StrEnum):
    """What a token is good for."""

    VIEWER = "viewer"
    """Sees everything, changes nothing."""
    USER = "user"
    """Submits experiments, and changes those that are their own."""
    ADMIN = "admin"
    """Changes everybody's, makes and revokes tokens, reads the audit events."""


RANK = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True)
class Caller:
    """Whoever makes a request. `name` is the owner of what they make; several tokens may bear one name."""

    name: str
    role: Role
    token_id: str | None = None

    def is_at_least(self, role: Role) -> bool:
        """Whether the caller may do what this role may."""
        return RANK[self.role] >= RANK[role]


LOCAL = Caller("local", Role.ADMIN)
"""Whoever reaches a server on loopback that has no tokens: it is their own machine."""


def require(caller: Caller, role: Role) -> None:
    """Raise Forbidden unless the caller may do what this role may."""
    if not caller.is_at_least(role):
        raise Forbidden(f"this needs the role {role}; the token of {caller.name} has the role {caller.role}")


def may_change(caller: Caller, owner: str) -> bool:
    """Whether the caller may change what belongs to `owner`: users change their own, admins everything."""
    return caller.is_at_least(Role.ADMIN) or (caller.is_at_least(Role.USER) and caller.name == owner)


def require_change(caller: Caller, owner: str) -> None:
    """Raise Forbidden unless the caller may change what belongs to `owner`."""
    require(caller, Role.USER)
    if not may_change(caller, owner):
        raise Forbidden(f"this belongs to {owner}; only {owner} or an admin may change it, and you are {caller.name}")
