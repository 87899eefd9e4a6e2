"""An application with the Python library aetcd."""

import asyncio

import aetcd
from async_lines import run
from lines import HOST, LEASE_SECONDS, OWN, PORT, TIMEOUT_SECONDS, WATCHED, alive, say


async def main():
    client = aetcd.Client(HOST, PORT, timeout=TIMEOUT_SECONDS)
    lease = await client.lease(LEASE_SECONDS)
    say(f"lease {lease.id}")
    watch = await client.watch(WATCHED.encode())

    async def events():
        async for event in watch:
            yield event.kv.value

    async def refresh():
        alive((await lease.refresh()).TTL)

    key = OWN.encode()
    await run(lambda text: client.put(key, text.encode()), lambda: client.get(key), events(), refresh)


asyncio.run(main())
