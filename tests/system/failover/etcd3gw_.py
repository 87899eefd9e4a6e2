"""An application with the Python library etcd3gw, which speaks JSON."""

import threading

from etcd3gw.client import Etcd3Client
from lines import HOST, LEASE_SECONDS, OWN, PORT, TIMEOUT_SECONDS, WATCHED, alive, run, say, why

client = Etcd3Client(HOST, PORT, timeout=TIMEOUT_SECONDS)


def watch():
    try:
        for event in client.watch(WATCHED)[0]:
            say(f"event {int(event['kv']['value'])}")
    except Exception as err:
        say(f"watch told: {why(err)}")
    else:
        say("watch told: end")


lease = client.lease(LEASE_SECONDS)
say(f"lease {lease.id}")
threading.Thread(target=watch).start()
run(lambda text: client.put(OWN, text), lambda: client.get(OWN), lambda: alive(lease.refresh()))
