"""Region, certificates and proxies: the same for both planes."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.store.http_server import Answer, Request, http_server
from untrusted_s3.errors import StoreRefused, StoreUnreachable, UsageError
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.network import Network, is_loopback
from untrusted_s3.store.s3 import S3Bucket

CREDENTIALS = S3Credentials("access", "secret")
ONE_TRY = StoreSettings(tries=1)
REGION = "eu-west-9"
LISTING = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
MALFORMED = f"<Error><Code>AuthorizationHeaderMalformed</Code><Region>{REGION}</Region></Error>".encode()

STORES: dict[str, Callable[[Request], Answer]] = {
    "400 and a header": lambda request: Answer(400, b"", {"x-amz-bucket-region": REGION}),
    "301 and a header": lambda request: Answer(301, b"", {"x-amz-bucket-region": REGION}),
    "403 and a header": lambda request: Answer(403, b"", {"x-amz-bucket-region": REGION}),
    "400 and a body": lambda request: Answer(400, b"" if request.method == "HEAD" else MALFORMED),
    "200 for the bucket only": lambda request: (
        Answer(200, b"", {"x-amz-bucket-region": REGION}) if request.method == "HEAD" else Answer(400, MALFORMED)
    ),
}


@pytest.mark.parametrize("store", STORES.values(), ids=list(STORES))
async def test_the_bucket_s_region_is_found_and_signed_with(
    store: Callable[[Request], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-1")

    def reply(request: Request) -> Answer:
        if f"/{REGION}/s3/" in (request.headers.get("Authorization", "") + request.path.replace("%2F", "/")):
            return Answer(200, LISTING if "list-type" in request.path else b"body")
        return store(request)

    with http_server(reply) as url:
        bucket = await S3Bucket.open(StoreLocation("bucket", ""), url, CREDENTIALS, settings=ONE_TRY)
        try:
            assert await bucket.get("key") == b"body"
            assert [item async for item in bucket.list("")] == []
        finally:
            await bucket.close()


async def test_a_store_that_names_another_region_each_time_is_refused() -> None:
    regions: list[str] = []

    def reply(request: Request) -> Answer:
        regions.append(f"region-{len(regions)}")
        return Answer(400, b"", {"x-amz-bucket-region": regions[-1]})

    with http_server(reply) as url, pytest.raises(StoreRefused):
        await S3Bucket.open(StoreLocation("bucket", ""), url, CREDENTIALS, settings=ONE_TRY)
    assert len(regions) <= 4


async def test_both_planes_use_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def proxy(request: Request) -> Answer:
        asked.append(f"{request.method} {request.path.partition('?')[0]}")
        return Answer(200, LISTING if "list-type" in request.path else b"body")

    with http_server(proxy) as url:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, url)
        monkeypatch.setenv("no_proxy", "elsewhere.example")
        endpoint = "http://store.example:1"
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(endpoint, CREDENTIALS, ONE_TRY), ONE_TRY)
        try:
            assert await bucket.get("key") == b"body"
            assert [item async for item in bucket.list("")] == []
        finally:
            await bucket.close()
        assert asked == [f"GET {endpoint}/bucket/key", f"GET {endpoint}/bucket"]

        monkeypatch.setenv("no_proxy", "store.example")
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(endpoint, CREDENTIALS, ONE_TRY), ONE_TRY)
        try:
            for work in (bucket.get("key"), bucket.size("key")):
                with pytest.raises(StoreUnreachable):
                    await work
        finally:
            await bucket.close()
        assert len(asked) == 2


async def test_a_proxy_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://user:hidden@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "elsewhere.example")
    connection = connect("http://store.example:1", CREDENTIALS, ONE_TRY)
    bucket = S3Bucket(StoreLocation("bucket", ""), connection, ONE_TRY)
    try:
        for work in (bucket.get("key"), bucket.size("key")):
            with pytest.raises(StoreUnreachable, match=r"the proxy that HTTPS_PROXY or HTTP_PROXY names: ") as raised:
                await work
            assert "hidden" not in str(raised.value)
    finally:
        await bucket.close()


def server_certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for 127.0.0.1, and return a server's context and the file for those who trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem, encoding = directory / "server.pem", serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(encoding))
    bundle = directory / "bundle.pem"
    bundle.write_bytes(certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, bundle


async def test_both_planes_trust_the_bundle_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context, bundle = server_certificate(tmp_path)

    def reply(request: Request) -> Answer:
        return Answer(200, LISTING if "list-type" in request.path else b"body")

    with http_server(reply, context) as url:
        for trusted in (True, False):
            if trusted:
                monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
            else:
                monkeypatch.delenv("AWS_CA_BUNDLE")
            bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, CREDENTIALS, ONE_TRY), ONE_TRY)
            try:
                if trusted:
                    assert await bucket.get("key") == b"body"
                    assert (await bucket.call("list_objects_v2"))["IsTruncated"] is False
                else:
                    for work in (bucket.get("key"), bucket.size("key")):
                        with pytest.raises(StoreUnreachable, match="certificate is not trusted"):
                            await work
            finally:
                await bucket.close()


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_bundle_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", path)
    with pytest.raises(UsageError, match="AWS_CA_BUNDLE"):
        connect("https://store.example", CREDENTIALS, ONE_TRY)


def test_a_bundle_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CA bundle"):
        Network(str(tmp_path / "missing.pem")).tls_context()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "s3.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host) and not is_loopback(host + ".example") and not is_loopback("192.0.2.1")
