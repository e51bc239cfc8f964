"""The sessions of all connections that are open."""

from __future__ import annotations

import asyncio
import contextlib

from untrusted_s3.sync.session import Session


class Sessions:
    """The sessions whose connections have not ended, those of unknown devices among them."""

    def __init__(self) -> None:
        self._sessions: set[Session] = set()
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Add the session of a new connection."""
        self._sessions.add(session)

    def remove(self, session: Session) -> None:
        """Remove a session whose connection has ended."""
        self._sessions.discard(session)
        self._ended.set()

    def folder_opened(self) -> None:
        """Tell all sessions that a folder was opened: it may be one to offer."""
        for session in list(self._sessions):
            session.folder_opened()

    def end(self, reason: str) -> None:
        """End all sessions. The peers come back."""
        for session in list(self._sessions):
            session.end(reason)

    def end_those_sharing(self, folder_id: str, reason: str) -> set[Session]:
        """End the sessions that share a folder, and return them. They share nothing from now on.

        The peers come back.
        """
        ending = {session for session in self._sessions if folder_id in session.shared_folders}
        for session in ending:
            session.end(reason)
        return ending

    async def end_sharing(self, folder_id: str, reason: str, timeout: float) -> None:
        """End the sessions that share a folder; return when their connections have ended, at most after `timeout`."""
        ending = self.end_those_sharing(folder_id, reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._sessions & ending:
                    self._ended.clear()
                    await self._ended.wait()

    async def close(self, reason: str, timeout: float) -> None:
        """Say Close to all peers, give them `timeout` seconds to end their connections, and cut those that are left."""
        for session in list(self._sessions):
            session.say_close(reason)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._sessions:
                    self._ended.clear()
                    await self._ended.wait()
        for session in list(self._sessions):
            session.transport.abort()
