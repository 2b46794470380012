"""The page asks for nothing, lets nothing in, and is readable without seeing the figures and on a telephone."""

from __future__ import annotations

import html
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastmtl.reporting import plots
from fastmtl.reporting.compare import comparisons
from fastmtl.reporting.page import write_page
from fastmtl.reporting.table import Part, Table
from tests.reporting.test_plots import make_cells

EVIL = "<script>alert('x')</script>&\"$_--><b>"


class Parsed(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@plots.DRAWN
def scatter(places: np.ndarray) -> Figure:
    """Pixels, as figures of thousands of rows have."""
    figure = Figure((3.6, 3.6))
    axes = figure.subplots()
    axes.scatter(*places.T, s=7, rasterized=True, label=EVIL)
    axes.set_title(EVIL)
    axes.legend()
    return figure


def make_page(path: Path) -> str:
    cells = make_cells(seeds=3, budgets=[500], arms=[EVIL], primary=EVIL, **{f"candidates/{EVIL}": 3})
    table = Table(EVIL, ["arm", "x100", EVIL], [[EVIL, "58.2 ± 1.0", "a"], ["none", "−1.5", ""]], frozenset({(0, 1)}),
                  f"Bold: better than `none`. {EVIL}")  # fmt: skip
    drawn = plots.pictures(cells, comparisons(cells))
    rng = np.random.default_rng(0)
    map_of_rows = scatter(rng.normal(size=(60, 2)))
    parts = [Part(EVIL, [f"Use `none`: {EVIL}"], [table, table], drawn),
             Part("Projections", pictures=[plots.Picture("projection", EVIL, EVIL, map_of_rows)])]  # fmt: skip
    write_page(path, EVIL, parts, [f"fastmtl primary={EVIL}"], {"torch": EVIL})
    return path.read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_page(tmp_path_factory.mktemp("page") / "page.html")


def test_nothing_is_asked_for_from_elsewhere_and_there_is_no_script(page: str) -> None:
    assert not re.search(r"https?:|@import|@font-face", page)
    assert set(re.findall(r"url\((.)", page)) == {"#"}
    for tag, attrs in Parsed(page).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attrs.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href"}:
                assert re.match("#|data:image/png;base64,", value or "")


def test_what_users_name_is_text(page: str) -> None:
    parsed = Parsed(page)
    assert "<b>" not in page
    assert parsed.text.count(EVIL) > 10
    assert html.escape(EVIL, quote=False) in page  # of a figure


def test_ids_are_unique_and_what_refers_to_one_finds_it(page: str) -> None:
    tags = Parsed(page).tags
    ids = Counter(attrs["id"] for _, attrs in tags if "id" in attrs)
    assert set(ids.values()) == {1}
    told = [attrs[k] for _, attrs in tags for k in ("aria-labelledby", "aria-describedby") if k in attrs]
    links = [attrs[k] for _, attrs in tags for k in ("href", "xlink:href") if (attrs.get(k) or "").startswith("#")]
    assert {*told, *(str(link)[1:] for link in links), *re.findall(r"url\(#([^)]+)\)", page)} <= set(ids)


def test_its_structure_tells_who_does_not_see_it(page: str) -> None:
    parsed = Parsed(page)
    assert parsed.of("html") == [{"lang": "en"}]
    assert len(parsed.of("h1")) == len(parsed.of("main")) == 1
    assert "viewport" in [attrs.get("name") for attrs in parsed.of("meta")]
    assert next(attrs for attrs in parsed.of("a")) == {"class": "skip", "href": "#results"}
    figures = parsed.of("svg")
    assert len(figures) == len(parsed.of("figure")) == 8
    assert all(one["role"] == "img" and one["aria-labelledby"] and one["aria-describedby"] for one in figures)
    assert len(parsed.of("caption")) == len(parsed.of("table")) == 2
    assert {attrs["scope"] for attrs in parsed.of("th")} == {"col", "row"}
    assert page.count("<strong>58.2 ± 1.0</strong>&nbsp;*") == 2
    assert parsed.text.count("What is bold also has a *.") == 2
    assert "<code>none</code>" in page
    assert [attrs.get("class") for attrs in parsed.of("td")[:2]] == ["number", None]


def test_a_page_without_anything_is_a_page(tmp_path: Path) -> None:
    assert "<h1>empty</h1>" in write_page(tmp_path / "a.html", "empty", []).read_text()


@pytest.mark.slow
def test_equal_parts_make_equal_pages(page: str, tmp_path: Path) -> None:
    assert make_page(tmp_path / "page.html") == page


@pytest.mark.slow
def test_a_hundred_cells_and_four_projections_stay_small(tmp_path: Path) -> None:
    parts = []
    for primary in ("rte", "mrpc"):
        cells = make_cells(seeds=5, budgets=[500, 2000], arms=["feature_similarity", "autosem"], primary=primary)
        parts.append(Part(primary, pictures=plots.pictures(cells, comparisons(cells))))
    rng = np.random.default_rng(0)
    rows = scatter(rng.normal(size=(4500, 2)))
    parts.append(Part("rows", pictures=[plots.Picture("rows", "rows", "rows", rows)] * 4))
    assert write_page(tmp_path / "page.html", "study", parts).stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_never_scrolls_the_page_sideways(page: str, width: int, tmp_path: Path, chromium: str) -> None:
    # A window of a browser has a least width, a frame has none; its page runs no script, so the one around it measures.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body style="margin:0"><iframe style="border:0;width:{width}px;height:4000px" srcdoc="{html.escape(page)}">'
        "</iframe><script>onload = () => { document.body.dataset.width = "
        "frames[0].document.documentElement.scrollWidth }</script>"
    )
    alone = ["--no-first-run", "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={max(width, 500)},4000", *alone]
    dumped = subprocess.run([*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, check=True).stdout
    measured = re.search(r'data-width="(\d+)"', dumped)
    assert measured
    assert int(measured[1]) <= width
    shot = tmp_path / f"{width}.png"
    subprocess.run([*command, f"--screenshot={shot}", frame.as_uri()], capture_output=True, check=True)
    assert shot.stat().st_size > 10_000


SEARCHED = Table("Rows", ["task", "text", "score"], [["mails", "a late parcel", "−1.5"], ["chats", "a lamp", "2.0"],
                 ["mails", "a red lamp", "10.0"]], searchable=True)  # fmt: skip

PROBE = """
<script>
const box = document.querySelector("input"), output = document.querySelector("output");
const shown = () => [...document.querySelectorAll("tbody tr")].filter(r => !r.hidden).map(r => r.cells[2].textContent);
const heads = [...document.querySelectorAll("thead button")], said = [];
box.value = "LAMP mails"; box.dispatchEvent(new Event("input")); said.push(output.textContent, shown().join(" "));
box.value = ""; box.dispatchEvent(new Event("input"));
heads[2].click(); said.push(shown().join(" ")); heads[2].click(); said.push(shown().join(" "));
heads[1].click(); said.push(shown().join(" "), heads[1].parentElement.getAttribute("aria-sort"));
document.title = said.join(" | ");
</script>
"""


def browse(page: Path, chromium: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.browser
def test_rows_are_searched_and_sorted(tmp_path: Path, chromium: str) -> None:
    page = write_page(tmp_path / "rows.html", "Rows", [Part("Rows", tables=[SEARCHED])])
    text = page.read_text()
    # The probe is a script of another hash, which the page's own policy refuses.
    page.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", PROBE))
    title = re.search(r"<title>(.*?)</title>", browse(page, chromium).stdout)
    assert title is not None
    assert title[1].split(" | ") == [
        "1 of 3 rows", "10.0", "−1.5 2.0 10.0", "10.0 2.0 −1.5", "2.0 −1.5 10.0", "ascending",
    ]  # fmt: skip


@pytest.mark.browser
def test_the_policy_of_the_page_lets_its_own_script_run_and_no_other(tmp_path: Path, chromium: str) -> None:
    page = write_page(tmp_path / "rows.html", "Rows", [Part("Rows", tables=[SEARCHED])])
    log = ("--enable-logging=stderr", "--v=0")
    assert "Content Security Policy" not in browse(page, chromium, *log).stderr
    page.write_text(page.read_text().replace("</body>", "<script>document.title = 'in'</script></body>"))
    broken = browse(page, chromium, *log)
    assert "Content Security Policy" in broken.stderr
    assert "<title>Rows</title>" in broken.stdout


def test_a_page_without_rows_to_search_has_no_script(page: str) -> None:
    assert "script-src" not in page
    assert Parsed(page).of("script") == []


def test_markdown_and_latex_show_the_first_rows_of_many(tmp_path: Path) -> None:
    many = Table("Rows", ["n"], [[str(n)] for n in range(100)], searchable=True)
    assert "| 9 " in many.markdown()
    assert "| 10 " not in many.markdown()
    assert many.latex().count(r"\\") == 11
    assert len(many.csv().splitlines()) == 101


@pytest.mark.parametrize(
    ("cell", "written"), [("=1+1", "'=1+1"), ("@a", "'@a"), ("+1.5", "+1.5"), ("-x", "'-x"), ("-", "-")]
)
def test_a_cell_is_no_formula_of_a_spreadsheet(cell: str, written: str) -> None:
    assert Table("T", ["a"], [[cell]]).csv().splitlines()[1] == written
