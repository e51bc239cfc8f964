from __future__ import annotations

import contextlib
import socket

from untrusted_s3.compat.ports import ReservedPort
from untrusted_s3.store.embedded.ports import all_ports, choose_ports


def test_a_reserved_port_is_given_once_and_a_server_can_listen_on_it() -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(contextlib.closing(ReservedPort())) for _ in range(50)]
        assert len({port.number for port in ports}) == 50
        for _ in range(2):  # also after the server has ended
            with socket.create_server(("127.0.0.1", ports[0].number)) as server:  # with SO_REUSEADDR
                with socket.create_connection(server.getsockname()):
                    server.accept()[0].close()
                assert ReservedPort().number != ports[0].number


def test_an_embedded_store_takes_no_port_that_is_reserved() -> None:
    with contextlib.closing(ReservedPort()) as reserved:
        assert max(all_ports(choose_ports(None))) < 26_000 <= reserved.number
