"""The site: it builds, and everybody can read it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from support import CHECKOUT

pytestmark = pytest.mark.slow

DOCS = CHECKOUT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", "html", DOCS, folder]
    built = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_is_built_without_warnings(site: Path) -> None:
    """Every link leads somewhere, and every page is in a table of contents."""
    built = {path.stem for path in site.glob("*.html")}

    assert built >= {page.stem for page in DOCS.glob("*.md")}
    assert "<svg" in (site / "idea.html").read_text()


def test_the_site_can_be_searched(browser: Browser, site: Path) -> None:
    """A word leads to the page that is about it, without a server behind the site."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((site / "index.html").as_uri())
        page.get_by_placeholder("Search").fill("PgBouncer")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Going to production").first.click()

        assert page.url.partition("?")[0].endswith("production.html")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_site_can_be_read_by_everybody(browser: Browser, site: Path, theme: Any) -> None:
    """Code, tables and the picture have enough contrast, and fit a phone."""
    size: Any = {"width": 360, "height": 740}
    only: Any = {"runOnly": ["color-contrast", "image-alt", "svg-img-alt", "empty-table-header"]}
    with browser.new_context(color_scheme=theme, viewport=size) as context:
        page = context.new_page()
        for name in sorted(path.stem for path in DOCS.glob("*.md")):
            page.goto((site / f"{name}.html").as_uri())
            found = Axe().run(page, options=only)
            assert found.violations_count == 0, f"{name}\n{found.generate_report()}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
