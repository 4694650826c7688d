"""Call the command line in this process, as a test's user would."""

from click.testing import CliRunner, Result

from batchland.cli.main import main


def batchland(*arguments: object, stdin: str | bytes | None = None) -> Result:
    """Exit code, stdout and stderr of a command. Unexpected exceptions are raised."""
    return CliRunner().invoke(
        main, [str(each) for each in arguments], input=stdin, catch_exceptions=False, prog_name="batchland"
    )
