"""`lines` for libraries with asyncio."""

import asyncio
import time

from lines import LEASE_SECONDS, PERIOD_SECONDS, REFRESH_SECONDS, TIMEOUT_SECONDS, say, why


async def repeat(name, call, period):
    while True:
        begun = time.monotonic()
        try:
            await asyncio.wait_for(call(), TIMEOUT_SECONDS)
        except Exception as err:
            say(f"{name} {'told' if name == 'lease' else 'failed'}: {why(err)}")
        else:
            if name != "lease":
                say(f"{name} ok")
        await asyncio.sleep(max(0.0, period - (time.monotonic() - begun)))


async def watch(events):
    """`events` is an asynchronous iterator over texts or bytes."""
    try:
        async for value in events:
            say(f"event {int(value)}")
    except Exception as err:
        say(f"watch told: {why(err)}")
    else:
        say("watch told: end")


async def run(put, get, events, refresh=None):
    """Make all calls. `put` gets a text. Without `refresh`, the library keeps the lease alive."""
    numbers = iter(range(10**9))
    tasks = [
        watch(events),
        repeat("put", lambda: put(str(next(numbers))), PERIOD_SECONDS),
        repeat("get", get, PERIOD_SECONDS),
    ]
    if refresh:
        tasks.append(repeat("lease", refresh, REFRESH_SECONDS))
    await asyncio.gather(*tasks)


__all__ = ["LEASE_SECONDS", "REFRESH_SECONDS", "run", "say", "why"]
