"""Select listed images by patterns as in .gitignore."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from batchland.errors import UsageError
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.system.names import composed


def select_images(
    images: Iterable[ImageRef], include: Sequence[str], exclude: Sequence[str], ignored: Ignored
) -> Iterator[ImageRef]:
    """Yield the images that match a pattern of `include` (all, if it is empty) and none of `exclude`.

    Patterns are those of .gitignore, applied to names: `*.png`, `camera-1/`, `/upload/**`, `!except-this.jpg`. A folder
    that could not be listed is yielded unless it is excluded. Raises UsageError for an invalid pattern.
    """
    included, excluded = pattern_matcher(include), pattern_matcher(exclude)
    for ref in images:
        if excluded(ref.name):
            ignored.counts["excluded"] += 1
        elif include and ref.error is None and not included(ref.name):
            ignored.counts["not included"] += 1
        else:
            yield ref


def pattern_matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A function that returns whether a name matches a pattern. Raises UsageError for an invalid pattern.

    Composed and decomposed characters of Unicode (NFC and NFD) are the same.
    """
    if not patterns:
        return lambda name: False  # noqa: ARG005
    from pathspec import GitIgnoreSpec  # slow to import, and only patterns need it

    for pattern in patterns:
        try:
            GitIgnoreSpec.from_lines([pattern])
        except ValueError as error:
            raise UsageError(f"pattern {pattern!r}: is not valid in .gitignore; write it like '*.png'") from error
    spec = GitIgnoreSpec.from_lines(map(composed, patterns))
    return lambda name: spec.match_file(composed(name))
