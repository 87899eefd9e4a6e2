"""An application with the Python library etcd3."""

import etcd3
from lines import HOST, LEASE_SECONDS, OWN, PORT, TIMEOUT_SECONDS, WATCHED, alive, run, say, why

client = etcd3.client(HOST, PORT, timeout=TIMEOUT_SECONDS)


def shown(response):
    if isinstance(response, Exception):
        say(f"watch told: {why(response)}")
        return
    for event in response.events:
        say(f"event {int(event.value)}")


def refresh():
    alive(min(answer.TTL for answer in lease.refresh()))


lease = client.lease(LEASE_SECONDS)
say(f"lease {lease.id}")
client.add_watch_callback(WATCHED, shown)
run(lambda text: client.put(OWN, text), lambda: client.get(OWN), refresh)
