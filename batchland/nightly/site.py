"""Make the folder of a new site: a job file that runs every night, the folders that it uses, and a README."""

import json
import shutil
from pathlib import Path
from typing import Final

from batchland.nightly.job_schema import job_schema
from batchland.system.folders import new_folder

_FILES: Final = Path(__file__).with_name("site_files")
_FOLDERS: Final = ("incoming", "models", "predictions", "runs")


def make_site(folder: Path) -> list[Path]:
    """Fill a new or empty folder, and return the files in it, relative to it. The folder appears whole or not at all.

    Raises UsageError if `folder` exists and is not an empty folder, OutputError if it cannot be written.
    """
    with new_folder(folder) as made:
        for source in _FILES.rglob("*"):  # copytree would collect the errors in a list
            copy = made / source.relative_to(_FILES)
            copy.mkdir() if source.is_dir() else shutil.copyfile(source, copy)
        for name in _FOLDERS:
            (made / name).mkdir()
        (made / "jobs" / "job.schema.json").write_text(json.dumps(job_schema(), indent=2) + "\n")
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
