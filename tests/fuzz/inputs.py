"""Valid messages, and a Hypothesis strategy that damages them."""

from __future__ import annotations

import lz4.block
from hypothesis import strategies as st

from tests.file_infos import deleted, directory, file, plaintext
from tests.fuzz.targets import OWN, PEER
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_hello

FILES = [
    file("a", sequence=1).raw,
    file("b", sizes=(2000, 3000), sequence=2).raw,
    directory("c", sequence=3).raw,
    deleted("d", sequence=4).raw,
    plaintext("e", sequence=5),
]
DEVICES = [pb.Device(id=OWN.raw, encryption_password_token=bytes(40)), pb.Device(id=PEER.raw, index_id=5)]


def lz4_frame(kind: int, body: bytes) -> bytes:
    packed = len(body).to_bytes(4, "big") + bytes(lz4.block.compress(body, store_size=False))
    return b"\x00\x04\x08" + bytes([kind]) + b"\x10\x01" + len(packed).to_bytes(4, "big") + packed


BODIES: list[tuple[int, bytes]] = [
    (pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=[pb.Folder(id="f", devices=DEVICES)]).SerializeToString()),
    (pb.INDEX, pb.Index(folder="f", files=FILES, last_sequence=5).SerializeToString()),
    (pb.INDEX_UPDATE, pb.Index(folder="f", files=FILES[:2], prev_sequence=5).SerializeToString()),
    (pb.REQUEST, pb.Request(id=1, folder="f", name="n", offset=5, size=2000, hash=bytes(48)).SerializeToString()),
    (pb.RESPONSE, pb.Response(id=1, data=bytes(100), code=pb.GENERIC).SerializeToString()),
    (pb.DOWNLOAD_PROGRESS, b""),
    (pb.PING, b""),
    (pb.CLOSE, pb.Close(reason="bye").SerializeToString()),
    (77, b"of a later version"),
]
HELLO = encode_hello(pb.Hello(device_name="name", client_name="c", client_version="v1", timestamp=1))


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes of `source` of which some are changed, lost or doubled."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(
            st.binary(max_size=8) | st.sampled_from([b"", b"\xff" * 4, bytes(8), bytes(data[start:end]) * 2])
        )
    return bytes(data)
