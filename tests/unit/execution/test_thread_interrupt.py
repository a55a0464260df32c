"""Interruptible: thrown into its block, and into nothing else."""

import contextlib
import threading

import pytest

from riverrun.execution.thread_interrupt import Interruptible, Interruption


def test_a_block_that_never_looks_is_ended() -> None:
    """Code that loops for ever, and catches every Exception, ends by the interruption."""
    interruptible = Interruptible()
    inside, finished = threading.Event(), threading.Event()

    def loop() -> None:
        try:
            with interruptible.block():
                inside.set()
                while True:
                    with contextlib.suppress(Exception):
                        sum(range(100))
        except Interruption:
            finished.set()

    thread = threading.Thread(target=loop)
    thread.start()
    assert inside.wait(10)
    assert interruptible.interrupt()
    assert finished.wait(10)
    thread.join()


def test_what_comes_after_the_block_is_left_alone() -> None:
    """An interruption that comes too late has no effect."""
    interruptible = Interruptible()
    with interruptible.block():
        pass
    assert not interruptible.interrupt()


def test_at_the_end_of_its_block_it_interrupts_the_block_or_nothing() -> None:
    """However the two meet, the code after the block goes on undisturbed."""
    hits = 0
    for _ in range(300):
        interruptible = Interruptible()
        other = threading.Thread(target=interruptible.interrupt)
        try:
            with interruptible.block():
                other.start()
        except Interruption:
            hits += 1
        try:
            other.join()
            sum(range(1000))
        except Interruption:
            pytest.fail("it came after the block")
