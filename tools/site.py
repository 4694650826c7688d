"""Build the documentation as a website that also works from files, in site/: `make docs`. Every link is checked.

mkdocs wants all its pages in one folder, so README, docs and the files that they link to are copied into one first.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = (
    "CHANGELOG.md", "CONTRIBUTING.md", "Containerfile", "LICENSE", "RELEASING.md", "SECURITY.md", "benchmarks/results",
    "compose.yaml", "cron", "docs", "jobs", "schemas",
)  # fmt: skip


def build(out: Path, root: Path = ROOT) -> None:
    """Raises CalledProcessError if a page cannot be built, or links to something that is not there."""
    with tempfile.TemporaryDirectory() as scratch:
        pages = Path(scratch, "pages")
        for name in COPIED:
            source, target = root / name, pages / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.py"))
            else:
                shutil.copyfile(source, target)
        for folder in ("schemas", "benchmarks/results"):
            if not (pages / folder / "README.md").exists():
                names = sorted(path.name for path in (pages / folder).iterdir())
                links = "".join(f"- [{name}]({name})\n" for name in names)
                (pages / folder / "README.md").write_text(f"# {folder}\n\n{links}")
        readme = (root / "README.md").read_text()
        for folder in ("schemas", "benchmarks/results"):
            readme = readme.replace(f"]({folder})", f"]({folder}/README.md)")
        (pages / "README.md").write_text(readme)
        for page in (pages / "docs").glob("*.md"):
            text = page.read_text().replace("](../benchmarks/results)", "](../benchmarks/results/README.md)")
            page.write_text(text)
        config = Path(scratch, "mkdocs.yml")
        shutil.copyfile(root / "mkdocs.yml", config)
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        subprocess.run([*command, "--site-dir", str(out.resolve())], check=True, env=environment)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "site"))
