"""The connection to an S3 server: its boto3 client, and the credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, InvalidRegionError, NoCredentialsError
from botocore.httpsession import URLLib3Session

from untrusted_s3.errors import InvalidEndpoint, UsageError
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.boto_http import BotoHTTP
from untrusted_s3.store.credentials import FixedResolver, RenewableCredentials
from untrusted_s3.store.network import Network, proxies_for
from untrusted_s3.store.s3_errors import translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION: Final = "us-east-1"

_DEFAULTS = StoreSettings()


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Explicit credentials. Without them boto3 looks in the environment, in ~/.aws and elsewhere."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class S3Connection:
    """A boto3 client, its HTTP, and the credentials that it signs with.

    boto3 refreshes them if they are temporary. If they come from the environment, they can be fetched again.
    """

    client: S3Client
    credentials: Credentials
    http: BotoHTTP
    network: Network
    renewable: RenewableCredentials | None = None

    @property
    def generation(self) -> int:
        """How often the credentials were replaced."""
        return self.renewable.generation if self.renewable is not None else 0

    def renew(self, used: int) -> bool:
        """Fetch fresh credentials, because those of generation `used` were refused. May block.

        Return whether there are other ones.
        """
        return self.renewable is not None and self.renewable.renew(used)

    def close(self) -> None:
        """Close all connections."""
        self.client.close()
        self.http.close()


def profile_credentials(profile: str) -> S3Credentials:
    """Return the credentials of a profile of the AWS tools. Raises UsageError."""
    try:
        found = boto3.Session(profile_name=profile).get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as error:
        raise UsageError(f"the profile {profile!r} cannot be used: {error}") from error
    if frozen is None or not frozen.access_key or not frozen.secret_key:
        raise UsageError(f"the profile {profile!r} has no credentials")
    if frozen.token:
        raise UsageError(f"the profile {profile!r} has temporary credentials: choose one with lasting ones")
    return S3Credentials(frozen.access_key, frozen.secret_key)


def connect(
    endpoint_url: str | None,
    credentials: S3Credentials | None = None,
    settings: StoreSettings = _DEFAULTS,
    *,
    region: str | None = None,
) -> S3Connection:
    """Make a boto3 client that S3-compatible servers understand: no default checksums, path-style keys at an endpoint.

    Without `region`, that of the environment is taken. No request is sent. Raises InvalidEndpoint or another
    UsageError, and StoreRefused if there are no credentials.
    """
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},  # store/retries.py repeats requests
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.timeout,
        max_pool_connections=settings.control_connections,
    )
    try:
        core = botocore.session.get_session()
        source = None
        if credentials is None:
            resolver = core.get_component("credential_provider")
            first = resolver.load_credentials()
            if first is None:
                raise NoCredentialsError
            source = RenewableCredentials(first, resolver.load_credentials)
            core.register_component("credential_provider", FixedResolver(source))
        session = boto3.session.Session(
            aws_access_key_id=credentials.access_key if credentials else None,
            aws_secret_access_key=credentials.secret_key if credentials else None,
            botocore_session=core,
        )
        region = region or session.region_name or DEFAULT_REGION
        ca_bundle = core.get_config_variable("ca_bundle")
        if ca_bundle is not None and not ca_bundle.strip():
            raise UsageError(
                "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or the profile's ca_bundle is empty: unset it, or name a file"
            )
        client = session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
        found = session.get_credentials()
        if found is None:
            raise NoCredentialsError
        network = Network(ca_bundle)
        options: dict[str, Any] = {
            "verify": network.ca_bundle or True,
            "proxies": proxies_for(client.meta.endpoint_url),
            "timeout": (settings.connect_timeout, settings.timeout),
            "max_pool_connections": settings.control_connections,
        }
        http = BotoHTTP(URLLib3Session(**options))
        http.attach(client)
        return S3Connection(client, found, http, network, source)
    except InvalidRegionError as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise InvalidEndpoint(f"the address of the S3 server cannot be used: {error}") from error
    except BotoCoreError as error:
        raise translate(error, "set up S3") from error
