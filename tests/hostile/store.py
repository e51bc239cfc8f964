"""A store that answers wrongly now and then, as a script for the proxy between it and a gateway."""

from __future__ import annotations

import random

from tests.peers.fault_proxy import PASSING, Fault, Forged, Script
from tests.peers.store_requests import StoreRequest

_ERROR = b"<Error><Code>%s</Code><Message>no</Message></Error>"
_REFUSALS = ((400, b"InvalidRequest"), (403, b"AccessDenied"), (409, b"OperationAborted"), (501, b"NotImplemented"))
_LISTING = b"<ListBucketResult><IsTruncated>%s</IsTruncated>%s</ListBucketResult>"
_TRUNCATED = b"<NextContinuationToken>again</NextContinuationToken>"


def hostile_store(seed: int, share: float) -> Script:
    """Return a script that answers a share of the requests wrongly: faults of networks, refusals, and lies.

    It never says that it has written what it has not, and never that there is nothing where there is something: no
    client can tell that.
    """
    numbers = random.Random(seed)

    def script(request: StoreRequest) -> Fault | None:
        if numbers.random() >= share:
            return None
        if numbers.random() < 0.5:
            return numbers.choice(PASSING)
        return _lie(request, numbers)

    return script


def _lie(request: StoreRequest, numbers: random.Random) -> Fault:
    match numbers.randrange(6):
        case 0:
            status, code = numbers.choice(_REFUSALS)
            return Forged(status, (), _ERROR % code)
        case 1:
            return Forged(numbers.choice([301, 302, 307]), (("Location", "http://127.0.0.1:9/stolen"),), b"")
        case 2:
            return Forged(500, (), numbers.randbytes(100_000))
    if request.writes:
        return Forged(503, (("Retry-After", "3600"),), b"")
    if request.operation.startswith("List"):
        body = numbers.choice(
            [
                _LISTING % (b"true", _TRUNCATED),
                _LISTING % (b"false", b"<Contents><Key>other</Key><Size>many</Size></Contents>"),
                b"<html>not here</html>",
                numbers.randbytes(1000),
                b"<!DOCTYPE a [<!ENTITY x '" + b"x" * 1000 + b"'>]><a>" + b"&x;" * 1000 + b"</a>",
            ]
        )
        return Forged(200, (), body)
    encoding = (("Content-Encoding", "gzip"),) if numbers.random() < 0.3 else ()
    return Forged(numbers.choice([200, 206]), encoding, numbers.randbytes(numbers.choice([0, 10, 2000, 200_000])))
