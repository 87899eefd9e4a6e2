"""What the applications in Python share: the lines that failover.py reads, and loops.

An application gets the addresses (HOST:PORT, separated by commas) and a prefix of keys. It prints
`@ TIME WHAT`, where TIME is in seconds since 1970, and WHAT is one of

    put ok, get ok                      a call has succeeded
    put failed: WHY, get failed: WHY    it has failed
    event N                             the watch on PREFIX/watched has shown this number
    watch told: WHY                     the library says that the watch is over
    lease ID                            a lease of 5 s, which is kept alive from now on
    lease told: WHY                     the library says that the lease is lost or in danger
"""

import sys
import threading
import time

TIMEOUT_SECONDS = 5
PERIOD_SECONDS = 0.05
LEASE_SECONDS = 5
REFRESH_SECONDS = 1.5

ADDRESSES = sys.argv[1].split(",")
HOST, PORT = ADDRESSES[0].rsplit(":", 1)[0], int(ADDRESSES[0].rsplit(":", 1)[1])
OWN, WATCHED = f"{sys.argv[2]}own", f"{sys.argv[2]}watched"


def say(what):
    # One write, so that lines of several threads do not mix.
    sys.stdout.write(f"@ {time.time():.3f} {what}\n")
    sys.stdout.flush()


def why(err):
    return f"{type(err).__name__} {err}".replace("\n", " ")[:200]


def repeat(name, call, period=PERIOD_SECONDS):
    """Call for ever, and say how each call ended. `name` is put, get or lease."""
    while True:
        begun = time.monotonic()
        try:
            call()
        except Exception as err:
            say(f"{name} {'told' if name == 'lease' else 'failed'}: {why(err)}")
        else:
            if name != "lease":
                say(f"{name} ok")
        time.sleep(max(0.0, period - (time.monotonic() - begun)))


def run(put, get, refresh):
    """Make all calls, each kind in a thread of its own. `put` gets a text."""
    numbers = iter(range(10**9))
    threading.Thread(target=repeat, args=("put", lambda: put(str(next(numbers))))).start()
    threading.Thread(target=repeat, args=("get", get)).start()
    repeat("lease", refresh, REFRESH_SECONDS)


def alive(ttl):
    """Check the answer to a keepalive."""
    if ttl <= 0:
        raise RuntimeError(f"the lease has ended: TTL {ttl}")
