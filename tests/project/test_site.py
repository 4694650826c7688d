"""The documentation site: it builds without a network, every link leads somewhere, and a page loads nothing else."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from tools.site import COPIED, build

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"(?:https?:|mailto:|data:|javascript:|#)")


def test_the_site_builds_without_broken_links(tmp_path):
    build(tmp_path / "site")
    site = tmp_path / "site"
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 30
    broken, loaded = [], []
    for page in pages:
        text = page.read_text()
        if page.name != "404.html":  # its links begin at the server's root
            for link in re.findall(r'(?:href|src)="?([^"\s>]+)', text):
                if not ELSEWHERE.match(link):
                    path = link.partition("#")[0]
                    target = (page.parent / unquote(path.partition("?")[0])).resolve() if path else page
                    if not target.exists():
                        broken.append(f"{page.relative_to(site)}: {link}")
        loaded += re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"', text)
    assert (broken, loaded) == ([], [])


def test_a_broken_link_fails_the_build(tmp_path, capfd):
    """A site of one page, because building the whole one takes seconds."""
    (tmp_path / "mkdocs.yml").write_text((ROOT / "mkdocs.yml").read_text().partition("\nnav:")[0])
    for name in COPIED:
        if (ROOT / name).is_dir():
            (tmp_path / name).mkdir(parents=True)
        else:
            (tmp_path / name).write_text("# Page\n")
    (tmp_path / "README.md").write_text("[gone](docs/gone.md)\n")
    with pytest.raises(subprocess.CalledProcessError):
        build(tmp_path / "site", tmp_path)
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert "docs/gone.md" in warning
