"""Choose among listed images by patterns as in .gitignore."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from batchland.errors import UsageError
from batchland.images.sources.refs import Ignored, ImageRef


def choose(
    images: Iterable[ImageRef], include: Sequence[str], exclude: Sequence[str], ignored: Ignored
) -> Iterator[ImageRef]:
    """Pass on the images that match a pattern of `include` (all, if there is none) and none of `exclude`.

    Patterns are those of .gitignore, on names below the root: `*.png`, `camera-1/`, `/upload/**`, `!except-this.jpg`.
    A folder that could not be listed is passed on unless it is excluded. Raises UsageError for a pattern that is none.
    """
    wanted, unwanted = matcher(include), matcher(exclude)
    for ref in images:
        if unwanted(ref.name):
            ignored.counts["excluded"] += 1
        elif include and ref.error is None and not wanted(ref.name):
            ignored.counts["not included"] += 1
        else:
            yield ref


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a name matches one of the patterns, as in .gitignore. Raises UsageError for a pattern that is none."""
    if not patterns:
        return lambda name: False  # noqa: ARG005
    from pathspec import GitIgnoreSpec  # only who has patterns pays for it

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            raise UsageError(f"pattern {pattern!r}: is no pattern as in .gitignore; write it like '*.png'") from error
    return GitIgnoreSpec.from_lines(patterns).match_file
