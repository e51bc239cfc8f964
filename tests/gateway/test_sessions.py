"""What all sessions are told."""

from __future__ import annotations

import asyncio

from tests.gateway.fakes import FakeSession
from tests.waiting import until
from untrusted_s3.gateway.sessions import Sessions


def two() -> tuple[Sessions, FakeSession, FakeSession]:
    sessions, one, other = Sessions(), FakeSession(), FakeSession()
    sessions.add(one.as_session)
    sessions.add(other.as_session)
    return sessions, one, other


def test_all_hear_of_a_new_folder_and_of_their_end() -> None:
    sessions, one, other = two()
    sessions.folder_opened()
    sessions.end("a reason")
    assert one.heard == other.heard == ["folder opened", "end: a reason"]
    assert len(sessions) == 2, "they are there until their connections have ended"


def test_one_that_has_ended_hears_nothing() -> None:
    sessions, one, other = two()
    sessions.remove(one.as_session)
    sessions.remove(one.as_session)
    sessions.folder_opened()
    assert (one.heard, other.heard) == ([], ["folder opened"])


async def test_peers_that_end_their_connections_are_not_cut() -> None:
    sessions, one, other = two()

    async def peers() -> None:
        for session in (one, other):
            while not session.heard:
                await asyncio.sleep(0)
            sessions.remove(session.as_session)

    await asyncio.gather(sessions.close("bye", 60), peers())
    assert one.heard == other.heard == ["close: bye"]


async def test_peers_that_do_not_are_cut_in_time() -> None:
    sessions, one, other = two()
    sessions.remove(one.as_session)
    await sessions.close("bye", 0.01)
    assert other.heard == ["close: bye", "abort"]


async def test_without_sessions_nothing_is_waited_for() -> None:
    await Sessions().close("bye", 60)


async def test_only_sessions_that_share_a_folder_end_with_it() -> None:
    sessions, one, other = Sessions(), FakeSession("f", "g"), FakeSession("g")
    for session in (one, other):
        sessions.add(session.as_session)

    async def leave() -> None:
        await until(lambda: bool(one.heard))
        sessions.remove(one.as_session)

    await asyncio.gather(sessions.end_sharing("f", "gone", 60), leave())
    assert (one.heard, other.heard) == (["end: gone"], [])
    await sessions.end_sharing("g", "gone", 0.01)
    assert other.heard == ["end: gone"], "one that stays is not waited for without end"
