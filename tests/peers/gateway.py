"""The gateway as a child process whose settings a test may choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.gateway import Gateway as GatewayProgram
from bench.gateway import GatewayFailed, S3Server
from tests.peers.gateway_main import encode
from untrusted_s3.settings import Settings

__all__ = ["Gateway", "GatewayFailed"]


class Gateway(GatewayProgram):
    """One gateway. `settings` are what no option sets; they apply from the next `start` on."""

    def __init__(
        self,
        home: Path,
        store: S3Server | None,
        prefix: str = "",
        *,
        options: Sequence[str] = (),
        settings: Settings | None = None,
        rules: Mapping[str, float] | None = None,
        identity: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(home, store, prefix, options=options, identity=identity, environment=environment)
        self.settings = settings
        self.rules = dict(rules or {})

    def program(self) -> list[str]:
        if self.rules:
            rules = "".join(f"limits.{name} = {value!r}; " for name, value in self.rules.items())
            script = f"import sys; from untrusted_s3 import limits; {rules}"
            return ["-c", script + "from untrusted_s3.cli.main import main; sys.exit(main())"]
        if self.settings is not None:
            return ["-m", "tests.peers.gateway_main", encode(self.settings)]
        return super().program()
