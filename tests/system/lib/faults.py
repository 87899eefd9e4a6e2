"""Harm members of a cluster.

Each fault returns the time from which gaps count. Its docstring goes into
docs/reliability.md.
"""

import re
import signal
import time

from lib.processes import output

QUIET_SECONDS = 10
HUNG_SECONDS = 25
CUT_SECONDS = 12
CUT_PREFERENCE = "5"  # of the routing rule; scripts/chaos.sh has moved the first one to 10
DOWN_SECONDS = 10
LEAD_SECONDS = 1


def nothing(_):
    """**nothing**: ten seconds without any fault. The row shows what the
    machine, its disk and etcd do by themselves. It has no target.
    """
    since = time.time()
    time.sleep(QUIET_SECONDS)
    return since


def kill(victims):
    """**kill -9**: SIGKILL to one member, which stays dead. If it was a
    follower, the other two go on at once. If it was the leader, nobody
    acknowledges a put or answers a get until the others have elected a new
    one. With etcd's default settings the election begins after about 1 to 2 s.
    A put that a follower has passed on to the dead leader gets no answer: its
    caller waits until its deadline, 2 s.
    """
    since = time.time() - LEAD_SECONDS
    for member in victims:
        member.kill()
    return since


def hang(victims):
    """**SIGSTOP**: one member stops, and goes on after 25 s (SIGCONT). Its
    connections stay open, so nobody notices at first: a call to it fails at
    its deadline, and a watch on it is silent until keepalive finds out. In
    etcd's proxy, as `etcdproxy run` starts it, that takes 10 s + 3 s. The
    others replace a leader that hangs as if it were dead. The gaps include the
    effects of the member's return.
    """
    since = time.time() - LEAD_SECONDS
    for member in victims:
        member.process.popen.send_signal(signal.SIGSTOP)
    time.sleep(HUNG_SECONDS)
    for member in victims:
        member.process.popen.send_signal(signal.SIGCONT)
    return since


def cut_off(victims):
    """**cut off**: for 12 s nothing passes between one member, a follower, and
    its peers. Clients still reach it. It cannot answer a put or a linearizable
    get, and its watch is silent.
    """
    since = time.time() - LEAD_SECONDS
    rules = [(way, member.peer_host) for member in victims for way in ("from", "to")]
    for rule in rules:
        output("ip", "rule", "add", "pref", CUT_PREFERENCE, *rule, "blackhole")
    time.sleep(CUT_SECONDS)
    for _ in rules:
        output("ip", "rule", "del", "pref", CUT_PREFERENCE)
    return since


def take_down(victims):
    """**all members down**: SIGKILL to all three. After 10 s all three start
    again, with their data. Only the time after this start counts: it includes
    the start of etcd, the election and the reconnection, up to the first
    success of each kind. A later gap counts if it is longer. etcd's proxy
    tries to connect after 1 s, then less and less often (gRPC's backoff).
    After 10 s its next attempt may be near or far, so the runs differ.
    """
    for member in victims:
        member.kill()
    time.sleep(DOWN_SECONDS)
    returned = time.time()
    for member in victims:
        member.start()
    return returned


# The victims. The member that serves the watch is the worst case.


def nobody(_, __):
    return []


def everybody(_, cluster):
    return cluster.members


def a_follower(client, cluster):
    victim = serves_the_watch(cluster)
    make_leader(client, cluster, next(m for m in cluster.members if m is not victim))
    return [victim]


def the_leader(client, cluster):
    victim = serves_the_watch(cluster)
    make_leader(client, cluster, victim)
    return [victim]


def make_leader(client, cluster, member):
    """`client` is the example client."""
    number = cluster.members.index(member) + 1
    output(client, "make-leader", str(number), cluster.endpoints)


def serves_the_watch(cluster):
    """The member that has sent the most watch messages."""
    return max(cluster.members, key=watch_messages)


def watch_messages(member) -> float:
    """How many watch messages it has sent."""
    sent = re.search(r'^grpc_server_msg_sent_total\{.*"Watch".*\} (\S+)$', member.metrics(), re.M)
    return float(sent[1]) if sent else 0
