"""The documentation site: it builds without a network, every link leads somewhere, and a page loads nothing else."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"(?:https?:|mailto:|data:|javascript:|#)")


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "site.py", tmp_path / "site"], check=True, timeout=120)
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


def test_a_broken_link_fails_the_build(tmp_path):
    for name in ("mkdocs.yml", "tools", "docs", "cron", "jobs", "schemas", "benchmarks", "README.md", "LICENSE",
                 "CHANGELOG.md", "CONTRIBUTING.md", "RELEASING.md", "SECURITY.md"):  # fmt: skip
        (tmp_path / name).symlink_to(ROOT / name)
    for name, content in (("README.md", "[gone](docs/gone.md)\n"),):
        (tmp_path / name).unlink()
        (tmp_path / name).write_text(content)
    (tmp_path / "tools").unlink()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "site.py").write_text((ROOT / "tools" / "site.py").read_text())
    command = [sys.executable, tmp_path / "tools" / "site.py", tmp_path / "site"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "docs/gone.md" in result.stderr
