"""The documentation as a site: it builds, loads nothing from elsewhere, and no link is dead."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml

pytest.importorskip("mkdocs", reason="mkdocs is not installed; the extra docs brings it")

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a page loads by itself; a link that a reader follows may lead anywhere."""
MOST_LINES = 60

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page loads, where it links to, and which places it has."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.places = [], [], set()
        self.language, self.text = None, text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places.update(filter(None, (values.get("id"), values.get("name"))))
        if tag == "html":
            self.language = values.get("lang")
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        is_loaded = tag != "link" or values.get("rel") not in ("canonical", "alternate")
        if tag in LOADING and is_loaded and values.get(LOADING[tag]):
            self.loads.append(values[LOADING[tag]])


def is_elsewhere(address):
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc) and parts.scheme not in ("data", "mailto")


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    """The built site; a warning fails it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*.html"))}
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in found.items()}


def test_nothing_is_loaded_from_elsewhere(pages, site):
    loads = {
        name: [each for each in page.loads if is_elsewhere(each)] for name, page in pages.items()
    }
    assert {name: found for name, found in loads.items() if found} == {}
    for sheet in site.rglob("*.css"):
        fetched = re.findall(
            r"(?:url\(|@import )[\"']?(https?:|//)", sheet.read_text(encoding="utf-8")
        )
        assert fetched == [], sheet


def test_every_page_is_there_in_both_languages(pages):
    english = {name for name in pages if not name.startswith("zh/")} - {"404.html"}
    chinese = {name.removeprefix("zh/") for name in pages if name.startswith("zh/")} - {"404.html"}
    assert english == chinese
    assert len(english) > 30
    languages = {name: page.language for name, page in pages.items()}
    assert {languages[name] for name in english} == {"en"}
    assert {languages[f"zh/{name}"] for name in english} == {"zh"}


def lead(name, address, site):
    """File and place that an address on a page means; None for one elsewhere."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    path = unquote(parts.path)
    own = (site / name).parent
    target = site / path.lstrip("/") if path.startswith("/") else own / path
    target = (site / name) if not path else target
    target = Path(os.path.normpath(target))
    return (target / "index.html" if target.is_dir() else target), unquote(parts.fragment)


def test_no_link_is_dead(pages, site):
    dead = []
    for name, page in pages.items():
        if name.endswith("404.html"):  # served at any address, so its links begin at the root
            continue
        for address in {*page.links, *page.loads}:
            found = lead(name, address, site)
            if found is None:
                continue
            target, place = found
            if not target.is_file():
                dead.append((name, address))
            elif place and target.suffix == ".html":
                known = pages[target.relative_to(site).as_posix()].places
                if place not in known and not place.startswith("__"):
                    dead.append((name, address))
    assert dead == []


@pytest.mark.parametrize(
    ("folder", "language", "word"), [("", "en", "projector"), ("zh/", "zh", "映射层")]
)
def test_each_language_searches_its_own_pages(site, pages, folder, language, word):
    index = json.loads((site / folder / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert language in index["config"]["lang"]
    locations = {entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]}
    assert not [place for place in locations if place.startswith("zh/")]
    assert {f"{folder}{place}" for place in locations} <= set(pages)
    text = " ".join(entry["title"] + entry["text"] for entry in index["docs"]).replace("\u200b", "")
    assert word in text
    home = pages[f"{folder}index.html"].text
    base = json.loads(re.search(r'id="__config"[^>]*>(.*?)</script>', home)[1])["base"]
    root = urljoin(f"http://site/{folder}index.html", base)
    fetched = urljoin(root, "search/search_index.json")  # as the theme's script puts it together
    assert fetched == f"http://site/{folder}search/search_index.json"


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(root, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("browser", root / "tests/serve/page/browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = module.find_chromium()
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    running = module.Browser(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.send("Browser.close")
    running.end()


@pytest.mark.parametrize(
    ("folder", "word", "found"), [("", "projector", "projector"), ("zh/", "映射层", "映射")]
)
def test_a_search_finds_pages_of_its_language(browser, address, folder, word, found):
    tab = browser.open(f"{address}{folder}index.html")
    field = "[data-md-component=search-query]"
    tab.click(".md-search__form")
    tab.fill(field, word)
    tab.wait("document.querySelectorAll('.md-search-result__item').length > 2")
    links = tab.value(
        "[...document.querySelectorAll('.md-search-result__link')].map(each => each.href)"
    )
    assert all(link.startswith(f"{address}{folder}") for link in links)
    assert any("/zh/" in link for link in links) == (folder == "zh/")
    assert found in tab.text(".md-search-result__list")
    local = [url for url in tab.requested if url.startswith((address, "data:"))]
    assert local == tab.requested
    assert tab.failures == []


def test_pages_fit_a_phone_and_the_switch_stays_on_the_page(browser, address):
    tab = browser.open(f"{address}comparison.html", phone=True)
    tab.wait("document.readyState === 'complete'")
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    switch = tab.value("document.querySelector('.md-select__link[hreflang=zh]').href")
    assert switch == f"{address}zh/comparison.html"
    tab.go(switch)
    tab.wait("document.documentElement.lang === 'zh'")
    assert tab.value("document.querySelector('h1').innerText").startswith("与其他框架的比较")
    assert tab.failures == []


def test_every_page_is_in_the_navigation(root):
    text = re.sub(r"!!python/\S+", "", (root / "mkdocs.yml").read_text(encoding="utf-8"))
    sections = yaml.safe_load(text)["nav"]
    named = [page for section in sections for pages in section.values() for page in pages]
    assert len(named) == len(set(named))
    there = {
        path.relative_to(root / "docs" / "en").as_posix()
        for path in (root / "docs" / "en").rglob("*.md")
    }
    assert set(named) == there


def test_every_decision_is_in_the_index(root):
    records = {path.name for path in (root / "docs" / "decisions").glob("*.md")}
    for language in ("en", "zh"):
        page = (root / "docs" / language / "decisions.md").read_text(encoding="utf-8")
        assert set(re.findall(r"\]\(\.\./decisions/([^)]+)\)", page)) == records, language


def test_examples_are_short_and_shown(root):
    shown = "".join(
        path.read_text(encoding="utf-8") for path in (root / "docs" / "en").rglob("*.md")
    )
    for script in sorted((root / "examples").glob("*.py")):
        assert len(script.read_text(encoding="utf-8").splitlines()) < MOST_LINES, script
        assert f'--8<-- "examples/{script.name}' in shown, script
        assert (root / "tests" / "examples" / f"test_{script.name}").is_file(), script
    new = root / "examples" / "new_parts"
    for path in new.rglob("*.*"):
        if path.suffix in (".py", ".yaml"):
            assert f'--8<-- "{path.relative_to(root).as_posix()}"' in shown, path


def test_the_reading_of_a_page_can_fail(tmp_path):
    page = Page(
        '<html lang="en"><script src="https://x.org/a.js"></script><link rel="canonical" '
        'href="https://x.org"><a href="b.html#c" id="d"></a>'
    )
    assert [each for each in page.loads if is_elsewhere(each)] == ["https://x.org/a.js"]
    assert page.links == ["b.html#c"]
    assert lead("zh/a.html", "../b.html#c", tmp_path) == (tmp_path / "b.html", "c")
    assert lead("zh/a.html", "#c", tmp_path) == (tmp_path / "zh" / "a.html", "c")
    assert lead("a.html", "https://x.org", tmp_path) is None
