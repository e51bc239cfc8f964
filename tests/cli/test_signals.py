"""SIGINT and SIGTERM: work that they cancel, and a service that they stop."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from untrusted_s3.cli.signals import StopSignals, run_interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_cleans_up_after_a_signal(number: signal.Signals) -> None:
    cleaned_up = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_interruptible(work())
    assert cleaned_up == [number]


def test_work_without_a_signal() -> None:
    async def work() -> int:
        return 5

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_interruptible(work()) == 5
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_the_first_signal_stops_and_the_second_one_cancels() -> None:
    async def serve() -> str:
        signals = StopSignals(same_signal=0.0)
        signals.graceful = True
        send(signal.SIGTERM)
        await signals.stop.wait()
        send(signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    assert asyncio.run(serve()) == "cancelled"


def test_before_it_can_stop_in_order_a_signal_cancels() -> None:
    async def serve() -> bool:
        signals = StopSignals(same_signal=0.0)
        send(signal.SIGTERM)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        return signals.stop.is_set()

    assert asyncio.run(serve()) is False


def test_a_signal_that_arrives_twice_counts_once() -> None:
    async def serve() -> None:
        signals = StopSignals(same_signal=1000.0)
        signals.graceful = True
        send(signal.SIGTERM)
        await signals.stop.wait()
        handled = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handled.set)
        send(signal.SIGTERM)
        send(signal.SIGUSR1)  # handled after the one before it
        await handled.wait()

    asyncio.run(serve())
