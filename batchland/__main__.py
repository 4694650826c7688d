"""The `batchland` command, also as `python -m batchland`."""

import gc
import os
import sys

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for plugins takes a tenth of a second
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")  # numpy's threads spin for 2**20 cycles, not 2**28
gc.set_threshold(100_000)  # with Python's 700, looking for cyclic garbage is a fifth of the time of imports


def run() -> None:
    """Run the command line and end the process with its exit code.

    A decoder that was given up and still runs would crash Python if it ended while Python shuts down. Then the process
    ends at once.
    """
    try:
        from batchland.cli.main import main  # here, so that Ctrl-C may interrupt it, and after the settings above

        main(prog_name="batchland")
    except KeyboardInterrupt:
        print("batchland: interrupted", file=sys.stderr)
        sys.exit(130)
    except SystemExit as end:
        if "torch" not in sys.modules:  # its extensions would print that their objects are left
            gc.freeze()  # otherwise Python looks for garbage among all objects while it ends: a tenth of a second
        threads = sys.modules.get("batchland.images.decoding_threads")
        if threads is None or not threads.abandoned_decoders():
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    run()
