"""Wait for a condition, compare two values."""

import time


def until(condition, what, seconds=30):
    """Wait until `condition()` is true. Fail with `what` after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"
