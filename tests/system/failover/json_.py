"""An application that speaks JSON without a library, with Python's own HTTP."""

import base64
import http.client
import json
import threading

from lines import HOST, LEASE_SECONDS, OWN, PORT, TIMEOUT_SECONDS, WATCHED, alive, run, say, why


def encoded(text):
    return base64.b64encode(text.encode()).decode()


class Api:
    """A connection that is made again after a failure."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(HOST, PORT, timeout=TIMEOUT_SECONDS)

    def call(self, path, **request):
        try:
            self.connection.request("POST", f"/v3/{path}", json.dumps(request))
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {text[:100]}")
        return json.loads(text)


def watch():
    connection = http.client.HTTPConnection(HOST, PORT)
    request = {"create_request": {"key": encoded(WATCHED)}}
    try:
        connection.request("POST", "/v3/watch", json.dumps(request))
        # One line is one message.
        for line in connection.getresponse():
            for event in json.loads(line)["result"].get("events", ()):
                say(f"event {int(base64.b64decode(event['kv']['value']))}")
    except Exception as err:
        say(f"watch told: {why(err)}")
    else:
        say("watch told: end")


puts, gets, leases = Api(), Api(), Api()
lease = leases.call("lease/grant", TTL=LEASE_SECONDS)["ID"]
say(f"lease {lease}")
threading.Thread(target=watch).start()
run(
    lambda text: puts.call("kv/put", key=encoded(OWN), value=encoded(text)),
    lambda: gets.call("kv/range", key=encoded(OWN)),
    lambda: alive(int(leases.call("lease/keepalive", ID=lease)["result"].get("TTL", 0))),
)
