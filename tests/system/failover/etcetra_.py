"""An application with the Python library etcetra."""

import asyncio

from async_lines import REFRESH_SECONDS, run, why
from etcetra import EtcdClient, HostPortPair
from lines import HOST, LEASE_SECONDS, OWN, PORT, WATCHED, say


async def main():
    async with EtcdClient(HostPortPair(HOST, PORT)).connect() as client:
        lease = await client.grant_lease(LEASE_SECONDS)
        say(f"lease {lease}")
        task = client.create_lease_keepalive_task(lease, REFRESH_SECONDS)
        task.add_done_callback(lambda task: say(f"lease told: {why(task.exception())}"))

        async def events():
            async for event in client.watch(WATCHED):
                yield event.value

        await run(lambda text: client.put(OWN, text), lambda: client.get(OWN), events())


asyncio.run(main())
