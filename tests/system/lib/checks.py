"""Wait for a condition, compare two values."""

import time


def until(condition, what, seconds=30):
    """Wait until `condition()` is true. After that many seconds, fail and name `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def same(found, wanted):
    """Fail unless the two are equal."""
    assert found == wanted, f"{found!r} is not {wanted!r}"
