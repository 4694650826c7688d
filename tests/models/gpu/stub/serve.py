"""Run functions of programs.py, each in a fork of this process, which has imported what they need."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from models.gpu.stub import programs


def serve() -> None:
    """Fork for each line of stdin, and print the exit code of the fork."""
    for line in sys.stdin:
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        else:
            sys.exit(run(**json.loads(line)))


def run(name: str, arguments: list[Any], variables: dict[str, str], result: str, errors: str) -> int:
    """Run a program in this process; write what it returns into one file, what it prints on stderr into another."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.environ.update(variables)
    try:
        Path(result).write_text(json.dumps(getattr(programs, name)(*arguments)))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
