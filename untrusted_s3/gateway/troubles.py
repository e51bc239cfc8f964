"""What fails in the background beside the tasks themselves, such as the upkeep of one folder, until it succeeds."""

from __future__ import annotations

from collections.abc import Collection

from untrusted_s3.errors import StoreUnreachable


class Troubles:
    """What fails now, by its name for /readyz.

    A store that does not answer is seen elsewhere, and may answer at the next try. So that counts from the second time
    in a row: it may be one key of many that cannot be read.
    """

    def __init__(self) -> None:
        self._problems: dict[str, str] = {}
        self._once: set[str] = set()

    def note(self, name: str, error: Exception | None) -> None:
        """Note how something has ended: with an error, or None."""
        if error is None:
            self._problems.pop(name, None)
            self._once.discard(name)
        elif isinstance(error, StoreUnreachable) and name not in self._once | self._problems.keys():
            self._once.add(name)
        else:
            self._problems[name] = str(error)

    def of_folder(self, folder_id: str, what: str, error: Exception | None) -> None:
        """Note how something of a folder has ended, such as "log not trimmed"."""
        self.note(f"folder {folder_id}: {what}", error)

    def problems(self, folder_ids: Collection[str]) -> dict[str, str]:
        """Return what fails by its name, without folders that are not among these: they are not open any more."""
        open_now = {f"folder {folder_id}" for folder_id in folder_ids}
        return {
            name: error
            for name, error in sorted(self._problems.items())
            if not name.startswith("folder ") or name.rpartition(": ")[0] in open_now
        }
