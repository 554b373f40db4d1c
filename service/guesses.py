"""How fast a caller may guess the token, at the login and in job calls together."""

import time
from collections import OrderedDict

from starlette.types import Scope

from service.log import log_refusal

TOO_MANY = "Too many wrong tokens came from this address. Wait a second."
WAIT = {"Retry-After": "1"}
"""The header of an answer that refuses another guess."""

_MOST_ADDRESSES = 1000
_AT_ONCE = 10  # that an address has; then one a second


class Guesses:
    """How many wrong tokens each address has given of late.

    A guess is counted before anything is awaited after `may`, so that guesses that
    come together are no more than others.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def may(self, address: str) -> bool:
        """Return whether an address may give another token now."""
        return self._until.get(address, 0.0) < time.monotonic() + _AT_ONCE

    def note(self, address: str, place: str) -> None:
        """Count and log a wrong token.

        It is forgotten a second later than the one before.

        Args:
            address: Where it came from.
            place: Where it was given.
        """
        log_refusal(f"A wrong token was given at {place} from {address}.")
        now = time.monotonic()
        self._until[address] = max(self._until.pop(address, 0.0), now) + 1
        while len(self._until) > _MOST_ADDRESSES:
            self._until.popitem(last=False)


def address_of(scope: Scope) -> str:
    """Return the address that a request came from."""
    client = scope.get("client")
    return client[0] if client else ""
