"""Addresses on loopback."""

import random
import socket


def random_host() -> str:
    """An address of 127.0.0.0/8. On it, each run can use the same ports."""
    octets = random.randrange(20, 220), random.randrange(256), random.randrange(1, 255)
    return "127.{}.{}.{}".format(*octets)


def free_address():
    """The host and port of an address on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()


def is_open(address) -> bool:
    """Whether somebody listens on host and port."""
    # From the same address, a connection could connect to itself.
    source = ("127.0.0.2", 0)
    try:
        socket.create_connection(address, timeout=5, source_address=source).close()
    except ConnectionRefusedError:
        return False
    return True
