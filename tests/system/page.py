"""The status page in a browser: what scripts/page.sh runs.

usage: page.py BINARY CLIENT SCRATCH_DIR PICTURES_DIR

Opens the page of a proxy with three members and some load, kills a member while
the page is open, and looks at what the page shows. Writes pictures of it.
"""

import contextlib
import socket
import sys
import threading
from pathlib import Path

from lib.browser import Browser
from lib.lab import Lab, Programs
from lib.load import Load
from lib.members import three_members
from lib.processes import exit_on_signals
from lib.proxies import Proxy

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
LOOKS = [("wide-light", 1180, "light"), ("wide-dark", 1180, "dark"), ("phone-light", 360, "light"), ("phone-dark", 360, "dark")]
TOO_WIDE = """return [...document.body.querySelectorAll('*')]
    .filter(node => node.getBoundingClientRect().right > arguments[0] && node.closest('thead') == null)
    .map(node => `${node.tagName} ${node.id} ${node.textContent.slice(0, 40)}`)"""
HEADLINE = "document.getElementById('headline').textContent"
STATES = "[...document.querySelectorAll('#members tbody tr')].map(row => row.cells[0].textContent).join()"


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(data):
    assert len(data) < 127
    return bytes([len(data)]) + data


def hostile_member(host):
    """A server of HTTP/2 whose every answer is an error with markup. Returns its address."""
    listener = socket.create_server((host, 0))
    fields = [(b"content-type", b"application/grpc"), (b"grpc-status", b"14"), (b"grpc-message", HOSTILE.encode())]
    # A literal field without indexing (RFC 7541, section 6.2.2); 0x88 is the status 200.
    block = b"\x88" + b"".join(b"\x00" + text(name) + text(value) for name, value in fields)

    def serve(client):
        with client, contextlib.suppress(ConnectionError):  # the proxy may be killed
            answer(client)

    def answer(client):
        client.sendall(frame(4, 0, 0, b""))
        buffer = b""
        client.recv(24, socket.MSG_WAITALL)
        while data := client.recv(65536):
            buffer += data
            while len(buffer) >= 9 + (length := int.from_bytes(buffer[:3], "big")):
                if buffer[3] == 1:
                    client.sendall(frame(1, 5, int.from_bytes(buffer[5:9], "big"), block))
                buffer = buffer[9 + length :]

    def accept():
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "{}:{}".format(*listener.getsockname())


def pictures(browser, directory, name):
    for look, width, scheme in LOOKS:
        browser.look(width, scheme)
        browser.run("return new Promise(done => setTimeout(done, 1200))")
        wide = browser.run(TOO_WIDE, width)
        assert not wide, f"{name}, {look}: wider than {width} pixels: {wide}"
        browser.picture(directory / f"{name}-{look}.png")
    browser.look(1180, "light")


def check_members_die(lab, browser, directory):
    cluster = three_members(lab).start()
    flags = ("--mode", "native", "--metrics-addr", f"{lab.host}:9090")
    proxy = Proxy(lab, cluster.endpoints, *flags)
    Load(lab, proxy.url).settle()
    browser.open(f"http://{lab.host}:9090/")
    browser.wait("three members are up", f"return {STATES} === 'up,up,up'")
    assert browser.run(f"return {HEADLINE}") == "Healthy"
    browser.wait("calls are shown", "return parseFloat(document.querySelector('#calls b').textContent) > 0")
    browser.run("return new Promise(done => setTimeout(done, 20000))")
    pictures(browser, directory, "healthy")

    cluster.members[1].kill()
    browser.wait("the member is shown as down", f"return {STATES} === 'up,down,up'")
    browser.wait("the headline says so", f"return /problem/.test({HEADLINE})")
    why = browser.run("return document.getElementById('why').textContent")
    assert "is down: " in why, why
    pictures(browser, directory, "member-down")

    cluster.members[0].kill()
    cluster.members[2].kill()
    browser.wait("nothing answers", f"return {HEADLINE} === 'The cluster does not answer'")
    pictures(browser, directory, "cluster-down")
    assert browser.complaints() == [], browser.complaints()

    proxy.process.kill()
    browser.wait("the proxy is gone", f"return {HEADLINE} === 'The proxy does not answer'")
    assert browser.run("return document.body.classList.contains('lost')")
    pictures(browser, directory, "proxy-gone")
    # Whoever still looks at the page sees when a new proxy comes.
    cluster.start()
    Proxy(lab, cluster.endpoints, *flags)
    browser.wait("the page shows the new proxy", f"return {HEADLINE} === 'Healthy'")
    assert not browser.run("return document.body.classList.contains('lost')")


def check_hostile(lab, browser, directory):
    cluster = three_members(lab).start()
    endpoints = f"{cluster.endpoints},http://{hostile_member(lab.host)}"
    proxy = Proxy(lab, endpoints, "--mode", "native", "--namespace", HOSTILE)
    browser.open(f"{proxy.url}/")
    shown = "return ['why', 'members', 'settings', 'logs'].every(id => document.getElementById(id).textContent.includes('<img src=x'))"
    browser.wait("the names are shown as text", shown)
    for _ in range(3):
        browser.run("return new Promise(done => setTimeout(done, 500))")
        assert browser.run("return document.images.length + document.scripts.length") == 1
        assert browser.run("return document.title").endswith("– etcdproxy")
    pictures(browser, directory, "hostile")
    # The policy would stop what the escapes let through.
    browser.run("document.body.insertAdjacentHTML('beforeend', arguments[0])", HOSTILE)
    browser.run("return new Promise(done => setTimeout(done, 500))")
    assert browser.run("return document.title") != "hacked"
    complaints = browser.complaints()
    assert any("Content Security Policy" in line for line in complaints), complaints


def main():
    binary, client, scratch, directory = map(Path, sys.argv[1:])
    directory.mkdir(parents=True, exist_ok=True)
    exit_on_signals()
    for check in (check_members_die, check_hostile):
        with Lab(Programs(binary, client), scratch / check.__name__) as lab, Browser(lab) as browser:
            browser.look(1180, "light")
            check(lab, browser, directory)
        print(f"ok: {check.__name__}")
    print(f"pictures: {directory}")


main()
