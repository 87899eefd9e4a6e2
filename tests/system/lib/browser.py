"""Chromium without a window, driven by chromedriver (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import time
import urllib.error
import urllib.request

from lib.ports import free_address

ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]


class Browser:
    """One window. It ends with the lab, or at the end of the `with` block."""

    def __init__(self, lab):
        host, port = free_address()
        self.base = f"http://{host}:{port}"
        self.process = lab.start("chromedriver", "chromedriver", f"--port={port}", env={"PATH": "/usr/bin:/bin", "HOME": str(lab.work)})
        options = {"args": [*ARGUMENTS, f"--user-data-dir={lab.work / 'browser'}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        deadline = time.monotonic() + 30
        while True:
            try:
                session = self.call("POST", "/session", capabilities={"alwaysMatch": wanted})
                break
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        self.session = f"/session/{session['sessionId']}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call("DELETE", self.session)

    def call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.call("POST", self.session + "/url", url=url)

    def run(self, script, *args):
        """The value that the script returns."""
        return self.call("POST", self.session + "/execute/sync", script=script, args=args)

    def devtools(self, command, **params):
        """A command of the DevTools protocol."""
        return self.call("POST", self.session + "/goog/cdp/execute", cmd=command, params=params)

    def wait(self, what, script, seconds=30):
        """Wait until the script returns something true. Return that."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)
        return value

    def complaints(self):
        """What the console says since the last call: errors, and violations of the page's policy."""
        return [entry["message"] for entry in self.call("POST", self.session + "/se/log", type="browser")]

    def look(self, width, scheme):
        """Be a window of this width, light or dark."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2, mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        """Write the whole page into a file."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
