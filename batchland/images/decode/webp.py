"""Decode WebP files; of an animation, the first frame."""

from PIL import WebPImagePlugin  # noqa: F401 - registers the format

from batchland.images.decode.orientation import orientation_of
from batchland.images.decode.picture import Picture, check_size, damage, open_with_pillow, rgb_pixels


def decode_webp(data: bytes, max_pixels: int) -> Picture:
    """Decode a WebP with transparency over white. Raises ImageError."""
    try:
        with open_with_pillow(data, "WEBP") as image:
            check_size(*image.size, max_pixels)
            image.load()
            return Picture(rgb_pixels(image), *image.size, orientation_of(image), image.info.get("icc_profile"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise damage(error) from error
