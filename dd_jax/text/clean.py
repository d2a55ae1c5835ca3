"""What published text-to-image models were fed: captions cleaned of the web, by an ordered table of rules run twice.

The order matters, and so do the oddities (a price keeps its dot, `24-120mm` stays, `d850` goes): the features that
the released weights were trained on depend on them.
"""

import functools
import html
import re
import urllib.parse
import warnings
from collections.abc import Callable
from typing import Any

from dd_jax.system.errors import UserError

Rule = Callable[[str], str]
VERSION = 1  # of these rules; part of the key of stored features
LONGEST = 10_000  # characters that are looked at: 120 tokens are far fewer, and the rules' time grows with the square

DOMAINS = "com|co|ru|net|org|edu|gov|it"
FILES = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
DASHES = (
    r"\u002D\u058A\u05BE\u1400\u1806\u2010-\u2015\u2E17\u2E1A\u2E3A\u2E3B\u2E40\u301C\u3030\u30A0"
    r"\uFE31\uFE32\uFE58\uFE63\uFF0D"
)
SIGNS = re.escape("#®•©™&@·º½¾¿¡§~)(][}{|\\/*")


def sub(pattern: str, replacement: str = "") -> Rule:
    """A rule: every match of a regular expression becomes `replacement`."""
    return functools.partial(re.compile(pattern).sub, replacement)


def url(scheme: str) -> Rule:
    """`scheme:` with what follows it, or a host name with its path, unless it is the first half of an address."""
    return sub(rf"\b(?:{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])|[a-zA-Z0-9.\-]+\.(?:{DOMAINS})[\w/-]*\b/?(?!@))")


def text_of(caption: str) -> str:
    """What a browser would show of it. UserError without beautifulsoup4."""
    soup = _needs("bs4", "beautifulsoup4")
    with warnings.catch_warnings():  # that it looks like a file name, or an address: it may
        warnings.simplefilter("ignore")
        try:
            return soup.BeautifulSoup(caption, features="html.parser").text
        except soup.exceptions.ParserRejectedMarkup:  # half a declaration, which no browser would show
            return soup.BeautifulSoup(caption.replace("<!", " "), features="html.parser").text


def open_joins(caption: str) -> str:
    """`this-is-my-cute-cat`: more than three dashes and underscores, and all of them were spaces."""
    return re.sub("[-_]", " ", caption) if len(re.findall("[-_]", caption)) > 3 else caption


def mend(caption: str) -> str:
    """Mojibake and HTML entities, also those that were escaped twice. UserError without ftfy."""
    return html.unescape(html.unescape(_needs("ftfy").fix_text(caption))).strip()


RULES: tuple[Rule, ...] = (
    urllib.parse.unquote_plus,
    str.strip,
    str.lower,
    sub("<person>", "person"),
    url("https?"),
    url("www"),
    text_of,
    sub(r"@\w+\b"),  # @nickname
    sub(r"[\u31c0-\u9fff]"),  # from CJK strokes to unified ideographs; kana stay
    sub(f"[{DASHES}]+", "-"),
    sub("[`\u00b4\u00ab\u00bb\u201c\u201d\u00a8]", '"'),  # acute, guillemets, curly ones, diaeresis
    sub("[\u2018\u2019]", "'"),
    sub("&quot;?"),
    sub("&amp"),
    sub(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # IPv4
    sub(r"\d:\d\d\s+$"),
    sub(r"\\n", " "),  # a backslash and an n
    sub(r"#\d{1,3}\b"),
    sub(r"#\d{5,}\b"),
    sub(r"\b\d{6,}\b"),
    sub(rf"(?<!\S)\S+\.(?:{FILES})"),  # file names; from the start of the word, or long words take forever
    sub("[\"']{2,}", '"'),
    sub(r"\.{2,}", " "),
    sub(f"[{SIGNS}]+", " "),
    sub(r"\s+\.\s+", " "),
    open_joins,
    mend,
    sub(r"\b[a-zA-Z]{1,3}\d{3,15}\b"),  # jc6640
    sub(r"\b[a-zA-Z]+\d+[a-zA-Z]+\b"),  # jc6640vc
    sub(r"\b\d+[a-zA-Z]+\d+\b"),  # 6640vc231
    sub(r"(?:worldwide\s+)?(?:free\s+)?shipping"),
    sub(r"(?:free\s)?download(?:\sfree)?"),
    sub(r"\bclick\b\s(?:for|on)\s\w+"),
    sub(rf"\b(?:{FILES})(?:\simages?)?"),
    sub(r"\bpage\s+\d+\b"),
    sub(r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),  # j2d1a2a
    sub(r"\b\d+\.?\d*[x\u0445\u00d7]\d+\.?\d*\b"),  # 120x180, also with a Cyrillic x or the sign
    sub(r"\b\s+:\s+", ": "),
    sub(r"(\D[,./])\b", r"\1 "),
    sub(r"\s+", " "),
    sub(r"""^["']([\w\W]+)["']$""", r"\1"),
    sub("^['_,\\-:;]"),
    sub("['_,\\-:+]$"),
    sub(r"^\.\S+$"),
    str.strip,
)


def once(caption: str) -> str:
    """All rules, in order."""
    for rule in RULES:
        caption = rule(caption)
    return caption


def clean(caption: str) -> str:
    """A caption as the encoder wants it: the rules, twice. It may come out empty, which is legal.

    UserError without the extra [text].
    """
    return once(once(str(caption)[:LONGEST].encode(errors="replace").decode()))


@functools.cache
def _needs(module: str, package: str = "") -> Any:
    try:
        return __import__(module)
    except ImportError:
        raise UserError(f"cleaning captions needs {package or module}: pip install 'dd_jax[text]'") from None
