"""Ids of a folder's index, which all gateways on a store announce (docs/format.md, "Renewals")."""

from __future__ import annotations

import secrets


def new_index_id() -> int:
    """Return a random id for a folder's index from now on."""
    return (secrets.randbits(62) | 1) << 1


def keeps_claims(index_id: int) -> bool:
    """Return whether the index was begun by a gateway that notes what each device claims, from the beginning on.

    Older gateways chose odd ids: whose claims they noticed is not known, and devices do not tell them again.
    """
    return index_id % 2 == 0
