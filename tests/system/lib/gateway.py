"""The members' JSON gateway: a writer that goes on while members fail, and who leads."""

import base64
import http.client
import itertools
import json
import threading
import time

PATIENCE_SECONDS = 1
PERIOD_SECONDS = 0.05


def call(address, path, **request):
    """Ask one member, on a connection of its own. Raises if there is no good answer."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)
    try:
        return ask(connection, path, request)
    finally:
        connection.close()


def ask(connection, path, request):
    connection.request("POST", f"/v3/{path}", json.dumps(request))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise OSError(f"{path}: {answer.status} {text[:200]}")
    return json.loads(text)


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def make_leader(cluster, member):
    """Moves the leadership to this member, unless it leads already."""
    status = call(member.address, "maintenance/status")
    own, leads = status["header"]["member_id"], status["leader"]
    if own != leads:
        for other in cluster.members:
            if call(other.address, "maintenance/status")["header"]["member_id"] == leads:
                call(other.address, "maintenance/transfer-leadership", targetID=own)


def has_lease(cluster, lease) -> bool:
    answer = call(cluster.members[0].address, "lease/timetolive", ID=lease)
    return int(answer["TTL"]) > 0


class Writer:
    """Writes 1, 2, 3 … into a key, each until a member acknowledges it.

    A number is written only over a smaller one, so a request that a member carries out late, or
    twice, makes no event.
    """

    def __init__(self, cluster, key):
        self.key = key
        self.acknowledged = {}  # number: time
        self.connections = itertools.cycle([
            http.client.HTTPConnection(member.address, timeout=PATIENCE_SECONDS)
            for member in cluster.members
        ])
        self.connection = next(self.connections)
        self.stopped = threading.Event()
        self.until_done("kv/put", key=encoded(key), value=encoded(f"{0:08}"))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for number in itertools.count(1):
            if self.stopped.wait(PERIOD_SECONDS):
                return
            key, value = encoded(self.key), encoded(f"{number:08}")
            smaller = {"target": "VALUE", "result": "LESS", "key": key, "value": value}
            put = {"requestPut": {"key": key, "value": value}}
            self.until_done("kv/txn", compare=[smaller], success=[put])
            self.acknowledged[number] = time.time()

    def until_done(self, path, **request):
        while True:
            try:
                return ask(self.connection, path, request)
            except (OSError, ValueError, http.client.HTTPException):
                self.connection.close()
                self.connection = next(self.connections)
                time.sleep(0.01)

    def stop(self):
        self.stopped.set()
        self.thread.join()
