"""A page as a browser shows it, in a wide and in a narrow window."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed, which would show the page")


class Outline(HTMLParser):
    """The elements of a page, with their attributes and what headings say."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.headings, self._in = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_data(self, data):
        if self._in in ("h1", "h2", "h3") and data.strip():
            self.headings.append((self._in, data))

    def handle_endtag(self, tag):  # noqa: ARG002  (the signature of a parser)
        self._in = None


def shown(page, tmp_path, *, dark):
    """What a browser makes of a page: the console's messages, and what the page is like in 1200 and in 360 columns of pixels.

    A browser's own window is never narrower than 500, so the page stands in two frames. Each tells the page around it what it
    sees, which is all that a frame from a file may do.
    """
    probe = """<script>addEventListener("load", () => {
      const root = document.documentElement, style = (e) => getComputedStyle(e);
      const charts = [...document.querySelectorAll(".chart")];
      parent.postMessage({
        width: root.clientWidth, content: root.scrollWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches,
        charts: charts.length, drawn: charts.filter((c) => c.querySelector("svg path, svg image")).length,
        lines: document.querySelectorAll(".scatterlayer .js-line").length,
        maps: document.querySelectorAll(".heatmaplayer image").length,
        outside: charts.filter((c) => c.getBoundingClientRect().right > root.clientWidth).length,
        ground: style(document.body).backgroundColor, ink: style(document.body).color,
        labels: [...new Set([...document.querySelectorAll(".chart text")].map((t) => style(t).fill))],
        strokes: [...new Set([...document.querySelectorAll(".js-line")].map((l) => style(l).stroke))],
      }, "*")});</script></body>"""
    (tmp_path / "page.html").write_text(page.read_text().replace("</body>", probe))
    (tmp_path / "frames.html").write_text("""<body><script>
      const seen = [];
      addEventListener("message", (e) => { seen.push(e.data); document.body.dataset.seen = JSON.stringify(seen); });
    </script>
    <iframe src="page.html" style="width:1200px;height:800px"></iframe>
    <iframe src="page.html" style="width:360px;height:800px;border:0"></iframe></body>""")
    words = (
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=20000", "--enable-logging=stderr", "--v=0"),
        *("--window-size=1300,1700", f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--dump-dom"),
        (tmp_path / "frames.html").as_uri(),
    )
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    found = Outline(result.stdout)
    seen = next(attributes["data-seen"] for tag, attributes in found.elements if tag == "body")
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    return console, sorted(json.loads(seen), key=lambda frame: frame["width"])


def contrast(one, other):
    """Of two colours as WCAG 2 counts it, from 1 to 21."""

    def luminance(colour):
        channels = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in channels]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
