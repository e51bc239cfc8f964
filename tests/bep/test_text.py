from __future__ import annotations

import pytest

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.connection import Connection
from untrusted_s3.bep.framing import encode_hello
from untrusted_s3.bep.text import printable


@pytest.mark.parametrize("text", ["", "laptop", "Käthes Rechner", "写真 📷", "👩‍👩‍👧‍👦", "no\u00a0break"])
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "?[2Jgone"),
        ("two\nlines\r", "two?lines?"),
        ("a\x00b\x7f\x9b", "a?b??"),
        ("txt.\u202eexe", "txt.?exe"),
        ("x" * 201, "x" * 200),
    ],
)
def test_what_a_terminal_might_act_upon(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_hello_of_control_characters_is_harmless() -> None:
    hello = pb.Hello(device_name="\x1b]0;owned\x07", client_name="a\nb", client_version="\x1b[31m", timestamp=1)
    (event,) = Connection(0).receive_data(encode_hello(hello), 0)
    assert event == events.HelloReceived("?]0;owned?", "a?b", "?[31m", 0)
