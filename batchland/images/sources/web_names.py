"""Names of images by URL: the URL without passwords, signatures and other secrets."""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urljoin

from batchland.errors import UsageError
from batchland.system.urls import bare_url, is_url

_WORD: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
"""A word of a name in camel case: `AWSAccessKeyId` has four."""
_SECRET: Final = re.compile(
    r"[a-z0-9]*(?:auth|credential|csrf|hmac(?:sha)?|jwt|key|pass(?:code|phrase|w(?:or)?d)?|pwd|secret"
    r"|sess(?:ion)?id|sig(?:nature)?|token|xsrf)(?:id|key|value|sig|s)?"
    r"|(?:access|auth|login|pin)code|ak|assertion|authentic[a-z]*|authori[sz]ation|bearer|cookie|creds?|expir[a-z]*"
    r"|hdn[a-z]*|hm|nonce|oh|otp|pin"
    r"|policy|psw|pswd|pw|saml[a-z]*|sas|sess|(?:asp)?session[a-z]*|sid|sign|signed|ticket|tk|tkn|tok|totp"
)
"""Words for what may hold a signature or a password, in lower case. `keyword` does not end in `key`. `code` and `hash`
alone are none: they often say which image it is."""
_PLAIN: Final = frozenset(("bypass", "compass", "encompass", "hockey", "monkey", "turkey", "whiskey"))
"""Words that end like a secret."""
_ABOUT: Final = frozenset(
    ("color", "colour", "count", "font", "frame", "height", "limit", "number", "position", "size", "style", "width")
)
"""Last words of names that describe something, as in `key_frame`. They decide, whatever stands before them."""
_SECRET_NAMES: Final = re.compile(r"(?i)x-(amz|goog|ms)-")
"""The beginning of names that belong to a signature."""
_PATH_PARAMETER: Final = re.compile(";([^;/=]+)=[^;/]*")
_MAX_NESTED: Final = 4
"""URLs inside URLs, one in the other; what is nested deeper is left out."""


def public_url(url: str) -> str:
    """A URL without user, password, fragment and parameters that may be secret.

    Other parameters identify the image. A URL that is the value of a parameter is treated likewise.
    """
    return _public(url.partition("#")[0], 0)


def _public(address: str, depth: int) -> str:
    address, _, query = address.partition("?")
    address = bare_url(address) if is_url(address) else address
    address = _PATH_PARAMETER.sub(lambda found: "" if is_secret(found[1]) else found[0], address)
    query = _public_query(query, depth)
    return f"{address}?{query}" if query else address


def _public_query(query: str, depth: int) -> str:
    """Without the parameters that may be secret. They are separated by `&` or `;`."""
    kept, secret = "", False
    for separator, parameter in re.findall("(^|[&;])([^&;]*)", query):
        name, equals, value = parameter.partition("=")
        if is_url(unquote(parameter)):
            name, equals, value = "", "", parameter
        secret = is_secret(name) or (secret and separator == ";" and not equals)  # then `;` belongs to a password
        if not secret:
            kept += (separator if kept else "") + name + equals + _public_value(value, depth + 1)
    return kept


@lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether the value of a parameter or variable may be secret, by the words of its name.

    Words end at `-`, `_` or a capital; a version as in `tokenv2` is left out.
    """
    name = unquote(unquote(name))
    parts = [re.sub(r"[vV]?[0-9]+$", "", part) for part in re.split(r"[^A-Za-z0-9]+", name) if part]
    words = ["".join(parts).lower(), *(word.lower() for part in parts for word in (part, *_WORD.findall(part)))]
    if _SECRET_NAMES.match(name):
        return True
    return words[-1] not in _ABOUT and any(map(_SECRET.fullmatch, set(words) - _PLAIN))


def _public_value(value: str, depth: int) -> str:
    """The value of a parameter, without the secrets of a URL in it."""
    decoded = unquote(value)
    if not is_url(decoded) and not re.search("[?&;#]", decoded):
        return value
    if depth > _MAX_NESTED:
        return ""
    address, mark, fragment = decoded.partition("#")
    part = _public if is_url(address) or "?" in address else _public_query
    public = part(address, depth) + mark + _public_query(fragment, depth)
    if public == decoded:
        return value
    return public if value == decoded else quote(public, safe="")


def joined_url(base: str, entry: str) -> str:
    """The URL of a list's entry that is relative to a base URL. Raises UsageError for an invalid URL."""
    try:
        return urljoin(f"{base.rstrip('/')}/", quote(entry, safe="/%?&=;:@+,~!$'()*"))
    except ValueError as error:
        raise UsageError(f"{entry}: is not valid below a URL ({error})") from None
