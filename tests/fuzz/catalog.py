"""All fuzz targets by name, with the inputs that they begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.fuzz import answer_targets, checkpoint_targets, index_targets, inputs, store_targets, targets
from tests.fuzz.engine import Target
from tests.fuzz.mutations import Mutator
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_frame, frame_head


def damage_bytes(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change bytes anywhere."""
    return mutator.damaged(data, others)


def damage_message(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change fields of a protobuf message, seldom bytes anywhere."""
    return mutator.damaged(data, others) if mutator.below(4) == 0 else mutator.protobuf(data, others)


def damage_stream(mutator: Mutator, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the bodies of some messages of a stream, their order or number, seldom bytes anywhere."""
    frames = _frames(data)
    if not frames or mutator.below(8) == 0:
        return mutator.damaged(data, others)
    at = mutator.below(len(frames))
    kind, body = frames[at]
    match mutator.below(8):
        case 0:
            del frames[at]
        case 1:
            frames.insert(at, inputs.BODIES[mutator.below(len(inputs.BODIES))])
        case 2:
            frames[at] = (mutator.below(12), body)
        case _:
            frames[at] = (kind, damage_message(mutator, body, ()))
    return b"".join(_frame(mutator, kind, body) for kind, body in frames)


def _frame(mutator: Mutator, kind: int, body: bytes) -> bytes:
    if kind > 7:
        return b"\0\2\x08" + bytes([kind % 128]) + len(body).to_bytes(4, "big") + body
    return inputs.lz4_frame(kind, body) if mutator.below(8) == 0 else frame_head(kind, len(body)) + body


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return type and body of each uncompressed message of a stream; nothing if it is not whole."""
    found = []
    at = 0
    while at < len(data):
        head = int.from_bytes(data[at : at + 2], "big")
        start = at + 2 + head + 4
        header = data[at + 2 : at + 2 + head]
        size = int.from_bytes(data[start - 4 : start], "big")
        if start + size > len(data) or header[:1] not in (b"", b"\x08") or head > 2:
            return []
        found.append((header[1] if head == 2 else 0, data[start : start + size]))
        at = start + size
    return found


def _bodies(*numbers: int) -> Callable[[], list[bytes]]:
    return lambda: [inputs.BODIES[number][1] for number in numbers]


def _streams() -> list[bytes]:
    single = [encode_frame(*body) for body in inputs.BODIES]
    return [*single, b"".join(single[:4]), inputs.lz4_frame(*inputs.BODIES[1])]


TARGETS: Mapping[str, Target] = {
    "connection": Target(
        targets.connection, lambda: [inputs.HELLO + encode_frame(*inputs.BODIES[0]), inputs.HELLO], damage_bytes
    ),
    "messages": Target(targets.messages_fast, _streams, damage_stream, max_size=800),
    "file_info": Target(targets.file_info, lambda: inputs.FILES, damage_message),
    "index": Target(targets.index, _bodies(1, 2), damage_message),
    "response": Target(targets.response, _bodies(4), damage_message),
    "cluster_config": Target(
        targets.cluster_config,
        lambda: [pb.Folder(id="f", devices=inputs.DEVICES).SerializeToString()],
        damage_message,
    ),
    "records": Target(store_targets.records, store_targets.record_seeds, damage_bytes, store_targets.RECORD_TOKENS),
    "answers": Target(
        answer_targets.answers, answer_targets.answer_seeds, answer_targets.damage_answer, answer_targets.ANSWER_TOKENS
    ),
    "segments": Target(index_targets.segments, index_targets.segment_seeds, damage_message),
    "checkpoints": Target(
        checkpoint_targets.checkpoints,
        checkpoint_targets.checkpoint_seeds,
        checkpoint_targets.damage_checkpoint,
        max_size=4000,
    ),
}
