"""The rules for claims, for one name, with plain versions and devices."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.index.claims import Claims, Declined


@dataclass(frozen=True)
class Plain:
    """A version."""

    number: int
    deleted: bool = False


FILE, GONE, NEWER = Plain(3), Plain(5, deleted=True), Plain(7)
MANY = 31


def claims(*moves: tuple[str, Plain], time: float = 10.0) -> Claims[str, Plain]:
    """Return the claims after devices announce versions, one after the other."""
    (device, version), *others = moves
    made = Claims(version, {device: version})
    for device, version in others:
        made = made.claim(device, version, time)
    return made


def test_a_device_that_goes_back_to_a_file_is_not_shown_the_deletion_again() -> None:
    """It has forgotten the deletion, and would take it over again and again."""
    made = claims(("A", FILE), ("B", GONE), ("A", GONE), ("C", FILE)).decline("C", GONE, 11.0)
    assert made.current == GONE
    assert made.shown("A") == FILE
    back = made.claim("A", FILE, 20.0)
    assert (back.current, back.dissents) == (FILE, (GONE,))
    assert back.declined_by("A") == {GONE: Declined(20.0, MANY)}
    assert back.decline("B", FILE, 30.0).shown("A") == FILE


def test_a_device_that_comes_with_an_older_file_in_place_of_a_deletion_is_not_shown_that_again() -> None:
    """It has the file from elsewhere. If it had made it in place of the deletion, its number would be larger."""
    made = claims(("A", GONE), ("B", GONE), ("A", FILE))
    assert made.declined_by("A") == {GONE: Declined(10.0, MANY)}
    assert made.decline("B", FILE, 30.0).shown("A") == FILE


def test_a_deletion_that_nobody_claims_any_more_is_not_noted() -> None:
    made = claims(("C", FILE), ("A", GONE), ("A", FILE))
    assert made == Claims(FILE, {"A": FILE, "C": FILE})


def test_a_device_that_makes_a_new_file_in_place_of_a_deletion_declines_nothing() -> None:
    """This is the ordinary case, of which the log must not say more."""
    assert not claims(("A", GONE), ("B", GONE), ("A", NEWER)).declined
    assert not claims(("A", GONE), ("B", GONE), ("C", GONE), ("A", NEWER), ("B", NEWER)).declined
    assert not claims(("A", FILE), ("B", NEWER), ("B", FILE)).declined


def test_a_device_that_moves_from_file_to_file_may_be_shown_the_first_one_again() -> None:
    """A receive-only device may have changed the file meanwhile, which nobody is told."""
    made = claims(("A", NEWER), ("B", NEWER), ("C", FILE), ("A", FILE))
    assert made.current == FILE
    assert not made.declined


def test_a_device_that_cannot_do_a_deletion_is_shown_the_rest_only() -> None:
    """It announces what it has instead as invalid, and takes over the dissent that it is shown."""
    made = claims(("A", FILE), ("B", GONE), ("C", GONE)).decline("A", GONE, 11.0)
    assert made.shown("C") == FILE
    left = made.withdraw("C", 20.0)
    assert left.declined_by("C") == {GONE: Declined(20.0, MANY)}
    assert left.shown("C") == FILE
    back = left.claim("C", FILE, 30.0)
    assert back.shown("C") == FILE
    assert back.declined_by("C") == {GONE: Declined(20.0, MANY)}
    assert not back.claim("C", NEWER, 40.0).declined_by("C")
    newer = left.claim("C", NEWER, 30.0)
    assert newer.current == NEWER
    assert newer.decline("B", NEWER, 40.0).shown("C") == NEWER


def test_a_device_that_withdraws_what_nobody_disputes_declines_nothing() -> None:
    assert not claims(("A", GONE), ("B", GONE)).withdraw("B", 20.0).declined
    assert not claims(("A", FILE), ("B", GONE)).withdraw("A", 20.0).declined
