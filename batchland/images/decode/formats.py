"""Recognise the format of an image file by its first bytes."""

from typing import Final

from batchland.errors import ImageError

_SIGNATURES: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JXL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JXL",
}
_BRANDS: Final = {
    b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"heim": "HEIF", b"heis": "HEIF",
    b"hevc": "HEIF", b"hevx": "HEIF", b"hevm": "HEIF", b"hevs": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF",
    b"mif2": "HEIF",
}  # fmt: skip
"""Brands of ISO media files that hold pictures."""
_OTHER_KINDS: Final = {
    b"8BPS": "PSD", b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "SVG",
    b"\0\0\1\0": "ICO", b"\0\0\2\0": "CUR or TGA", b"icns": "ICNS", b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000", b"II\xbc": "JPEG XR", b"DDS ": "DDS", b"P1": "PNM", b"P2": "PNM",
    b"P3": "PNM", b"P4": "PNM", b"P5": "PNM", b"P6": "PNM", b"P7": "PAM", b"Pf": "PFM", b"PF": "PFM",
    b"v/1\x01": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"#?RGBE": "Radiance HDR", b"SIMPLE  =": "FITS",
    b"gimp xcf": "XCF", b"qoif": "QOI", b"FLIF": "FLIF", b"BPG\xfb": "BPG", b"\x8aMNG": "MNG", b"\x8bJNG": "JNG",
    b"AT&TFORM": "DjVu", b"\x01\xda": "SGI", b"\x59\xa6\x6a\x95": "Sun raster",
    b"FUJIFILMCCD-RAW": "camera raw (RAF)", b"FOVb": "camera raw (X3F)", b"IIRO": "camera raw (ORF)",
    b"IIRS": "camera raw (ORF)", b"MMOR": "camera raw (ORF)", b"IIU\0": "camera raw (RW2)",
    b"\0MRM": "camera raw (MRW)", b"II\x1a\0\0\0HEAPCCDR": "camera raw (CRW)", b"\x89HDF": "HDF5",
    b"\xd7\xcd\xc6\x9a": "WMF", b"BA": "OS/2 bitmap array", b"\n\5\1": "PCX", b"\n\3\1": "PCX", b"\n\2\1": "PCX",
    b"Image type: ": "IM",
}  # fmt: skip
"""Kinds that are not read, by the bytes that they begin with."""


def format_of(data: bytes) -> str:
    """`JPEG`, `PNG`, `WEBP`, `BMP`, `GIF`, `TIFF`, `AVIF`, `HEIF` or `JXL`.

    Raises ImageError (`unsupported_format` for other kinds of images, `not_an_image`, `corrupt`).
    """
    if data[:2] == b"BM" and _is_bmp(data):
        return "BMP"
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature) and name != "BMP":
            return name
    if 1 < len(data) < 12 and _is_cut_signature(data):
        raise ImageError("truncated", "the file ends within its header")
    if data[:4] == b"RIFF":
        if data[8:12] == b"WEBP":
            return "WEBP"
        raise ImageError("not_an_image", "a RIFF file (sound, video), not a picture")
    if data[4:8] == b"ftyp":
        return _format_of_iso_media(data)
    for signature, name in _OTHER_KINDS.items():
        if data.startswith(signature):
            raise ImageError("unsupported_format", f"a file in {name} format, which is not read here")
    if data[128:132] == b"DICM":
        raise ImageError("unsupported_format", "a file in DICOM format, which is not read here")
    if data.startswith((b"\x89PNG", b"GIF8")):
        raise ImageError(
            "corrupt", f"starts like a {'PNG' if data[0] == 0x89 else 'GIF'} file, but its header is damaged"
        )
    raise ImageError("not_an_image", "the content is not that of an image file")


def _is_cut_signature(data: bytes) -> bool:
    """Whether fewer than 12 bytes are the beginning of a picture."""
    is_media = len(data) > 4 and data[:3] == bytes(3) and b"ftyp".startswith(data[4:8])
    return is_media or data[:4] == b"RIFF" or any(signature.startswith(data) for signature in _SIGNATURES)


def _is_bmp(data: bytes) -> bool:
    """Whether the header after `BM` has a known size: many other files begin with these two letters."""
    return len(data) < 18 or int.from_bytes(data[14:18], "little") in range(12, 125)


def _format_of_iso_media(data: bytes) -> str:
    size = int.from_bytes(data[:4])
    brands = [data[8:12], *(data[start : start + 4] for start in range(16, min(size, 256), 4))]
    known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if known:
        return "AVIF" if "AVIF" in known else "HEIF"
    name = brands[0].decode("ascii", "replace").strip()
    raise ImageError(
        "unsupported_format", f"an ISO media file of brand {name} (video, camera raw), not a picture that is read here"
    )
