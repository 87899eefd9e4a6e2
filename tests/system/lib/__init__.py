"""Shared by the system tests and the measurements.

cases         named test cases: choose, run, count
checks        wait for a condition, compare two values
cloudfoundry  a small Cloud Foundry: stages and launches apps
droplet       what the platform runs to make a droplet
faults        harm members: kill, hang, cut off
gateway       the members' JSON gateway: a writer, and who leads
lab           a scratch directory with processes; both go away at the end
load          a client that calls and watches all the time
members       etcd members and clusters
pki           certificates
ports         addresses on loopback
processes     start programs and end them
proxies       `etcdproxy run`
report        tables and documents
seen          what an application has seen while a member failed
systemd       a container that boots a Debian with systemd
ways          the ways to a cluster, and what calls cost on each
"""
