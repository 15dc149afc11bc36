"""A real Chromium without a window, driven over the DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from websockets.sync.client import connect

SECONDS = 60.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
    "--lang=en-US",
    "--hide-scrollbars",
    "--window-size=1280,800",
)
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
LARGEST_MESSAGE = 64 * 1024 * 1024


def find_chromium():
    """The program, or None where there is none."""
    return next((path for path in map(shutil.which, PROGRAMS) if path), None)


class Browser:
    """One browser process; its tabs are told apart by their sessions."""

    def __init__(self, program, profile, *, switches=()):
        self.profile = Path(profile)
        self.process = subprocess.Popen(
            [program, *SWITCHES, *switches, f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.tabs, self.replies, self.num_sent = {}, {}, 0
        self.closing = ExitStack()
        try:
            connection = connect(
                self._address(), max_size=LARGEST_MESSAGE, proxy=None, open_timeout=SECONDS
            )
            self.socket = self.closing.enter_context(connection)
        except BaseException:
            self.end()
            raise

    def _address(self):
        port_file = self.profile / "DevToolsActivePort"
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            assert self.process.poll() is None, "the browser has ended"
            time.sleep(0.02)
        raise AssertionError("the browser did not start")

    def send(self, method, session=None, **parameters):
        """Call a method and give its result; what happens meanwhile is noted by the tabs."""
        self.num_sent += 1
        number = self.num_sent
        message = {"id": number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        deadline = time.monotonic() + SECONDS
        while number not in self.replies:
            self.listen(max(0.01, deadline - time.monotonic()))
            assert time.monotonic() < deadline, f"{method} was not answered"
        reply = self.replies.pop(number)
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    def listen(self, seconds):
        """Take one message, if one comes in time."""
        try:
            message = json.loads(self.socket.recv(timeout=seconds))
        except TimeoutError:
            return
        if "id" in message:
            self.replies[message["id"]] = message
        elif message.get("sessionId") in self.tabs:
            self.tabs[message["sessionId"]].note(message["method"], message["params"])

    def open(self, url, *, like=None, language=None, phone=False):
        """A new tab; with ``like`` it shares cookies and storage with that one."""
        context = like.context if like else self.send("Target.createBrowserContext")
        target = self.send("Target.createTarget", url="about:blank", **context)["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, target, attached["sessionId"], context)
        self.tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.send(f"{domain}.enable")
        if language:
            agent = self.send("Browser.getVersion")["userAgent"]
            tab.send("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        tab.resize(*((390, 844) if phone else (1280, 800)), phone=phone)
        tab.go(url)
        return tab

    def end(self):
        self.closing.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(SECONDS)


class Tab:
    """One tab: what it shows, what it asked for, what went wrong in it."""

    def __init__(self, browser, target, session, context):
        self.browser, self.target, self.session, self.context = browser, target, session, context
        self.requested, self.failures, self.downloads = [], [], {}

    def note(self, method, told):
        if method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.failures.append(told["exceptionDetails"].get("text", "") + json.dumps(told)[:600])
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.failures.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def send(self, method, **parameters):
        return self.browser.send(method, self.session, **parameters)

    def go(self, url):
        self.send("Page.navigate", url=url)

    def reload(self):
        self.send("Page.reload")

    def resize(self, width, height, *, phone=False):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def value(self, script):
        """What an expression gives; a promise is waited for."""
        reply = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, script, seconds=SECONDS):
        """Wait until an expression is true, and give its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.value(f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()")
            if found:
                return found
            self.browser.listen(0.05)
        shown = self.value("document.body.innerText")
        raise AssertionError(f"{script} did not come. The page says: {shown}")

    def rest(self, seconds):
        """Let time pass and take in what happens."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.browser.listen(left)

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait_text(self, selector, words, seconds=SECONDS):
        part = f"document.querySelector({json.dumps(selector)}).innerText"
        return self.wait(f"{part}.includes({json.dumps(words)}) && {part}", seconds)

    def count(self, selector):
        return self.value(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector):
        """Click the middle of what is seen, as a person does."""
        name = json.dumps(selector)
        self.wait(f"document.querySelector({name}).getClientRects().length > 0")
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({name}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def focus(self, selector):
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")

    def fill(self, selector, text):
        """Replace what a field holds."""
        self.focus(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select?.()")
        if text:
            self.send("Input.insertText", text=text)
        else:
            self.press({"key": "Backspace", "code": "Backspace", "windowsVirtualKeyCode": 8})

    def press(self, key=ENTER):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, **key)

    def attach(self, selector, *paths):
        """Give files to a file input."""
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        found = self.send(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})"
        )
        self.send(
            "DOM.setFileInputFiles",
            files=[str(path) for path in paths],
            objectId=found["result"]["objectId"],
        )

    def save_downloads(self, folder):
        self.browser.send(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            **self.context,
        )

    def picture(self, path):
        """A picture of what is seen."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self.browser.send("Target.closeTarget", targetId=self.target)
        self.browser.tabs.pop(self.session, None)
