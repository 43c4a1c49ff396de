"""Find the encoding of a file that is not UTF-8, or say that it cannot be told.

charset-normalizer proposes encodings; it is often right, and never says how sure it is: of a file
of Spanish it takes ñ for ń (CP1250), of one of Japanese the kana for Hangul. So its proposals are
compared by their letters: those of one language must explain the text, and those of no other
proposal may. Proposals that read the same are one.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from charset_normalizer import from_bytes

from headrace.serving.errors import InputError
from headrace.serving.tables.dialect import as_options, encoding_name
from headrace.serving.tables.encoding import PIECE, guess
from headrace.serving.tables.files import File, unpacked

LIKELY = [
    "cp1252", "iso8859_15", "cp1250", "iso8859_2", "cp1251", "koi8_r", "cp866", "cp1253", "cp1254",
    "cp1255", "cp1256", "cp1257", "cp850", "mac_roman", "cp932", "euc_jp", "gb18030", "big5",
    "cp949",
]  # fmt: skip
"""Encodings that are proposed, the most frequent of those that read the same first."""
SAMPLE_BYTES = 2**18
"""Bytes of the lines that are not ASCII, which are all that tells encodings apart."""
SURE, UNLIKELY = 0.97, 0.9
"""Share of a text's characters that a language must explain, and that no other may."""
CLEARER = 2
"""Times as many frequent words or letters as the next language, where both explain the text."""


@dataclass(frozen=True)
class Language:
    """Its letters beyond ASCII, in lower case, and its most frequent words or letters."""

    letters: frozenset[str]
    frequent: frozenset[str]


def _latin(letters: str, words: str) -> Language:
    return Language(frozenset(letters), frozenset(words.split()))


def _script(letters: str, frequent: str) -> Language:
    return Language(frozenset(letters), frozenset(frequent))


LANGUAGES = {
    "English": _latin("éèêàçïöüñáíóâôë", "the and to of is in it for this that was you not my"),
    "German": _latin("äöüßéà", "der die das und ist nicht ein eine mit zu ich sehr für auf es im"),
    "French": _latin(
        "àâæçéèêëîïôœùûüÿ", "le la les de et est un une pas que pour très je ce des en du au"
    ),
    "Spanish": _latin("áéíñóúüç", "el la los de que y en un una no es muy por con para se lo"),
    "Portuguese": _latin("àáâãçéêíóôõúü", "o a os de que e em um uma não é para com muito do da"),
    "Italian": _latin("àèéìíîòóùú", "il la di che e un una non per molto con sono del le è"),
    "Dutch": _latin("éëïöüèáó", "de het een en van is niet dat ik op te met voor zeer zijn"),
    "Nordic": _latin("åäöæøéüà", "och det är en att inte jeg er og ikke som med på en av den til"),
    "Icelandic": _latin("áðéíóúýþæö", "og að er ekki í sem á það við með"),
    "Polish": _latin("ąćęłńóśźż", "nie i w z na jest się do to że bardzo jak za po co"),
    "Czech": _latin("áčďéěíňóřšťúůýžĺľŕôä", "a je se na v to že s i ne si do velmi za aj sa"),
    "Hungarian": _latin("áéíóöőúüű", "a az és nem is hogy egy van ez jó volt de meg nagyon"),
    "Romanian": _latin("ăâîșțşţ", "și si de la nu este în un o cu pe foarte mai ce din"),
    "Croatian": _latin("čćđšž", "i je u se na da ne za su vrlo od s sam ali"),
    "Turkish": _latin("çğıöşüâîû", "ve bir bu çok için da de ne ama en iyi daha ile"),
    "Baltic": _latin("āčēģīķļņšūžąęėįųõäöü", "ir un ja on ei labai yra nav kas see par bet ka"),
    "Russian": _script("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўј", "оеаинтсрвл"),
    "Greek": _script("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ", "αοιετνσηρπ"),
    "Hebrew": _script("אבגדהוזחטיכלמנסעפצקרשתךםןףץ", "יוהלאתרמבש"),
    "Arabic": _script("ءآأؤإئابةتثجحخدذرزسشصضطظعغـفقكلمنهوىيپچژگ", "اليمونرتبة"),
}  # fmt: skip
SYMBOLS = frozenset("£€$¥¢§°©®™•–—…“”„«»‹›‚¿¡½¼¾²³µ×±·№\u00a0")
"""Characters beyond ASCII that stand in any language, and not between letters."""
JOINERS = frozenset("’‘´·–—\u00ad")
"""Those that do."""
COMMON_HANZI = frozenset(
    "的一是不了人我在有他这中大来上个国和也子时道说出而要于就下得可你年生会自着去之过家学对她里后小么心"
    "多天能好都然没日起还发成事只作当想看文手十用主行方又如前所本见经头面公同三已老从动两长很非常差快质量"
    "這個來國時說於會過對裡後麼沒還發當樣經頭動長為們無電話車書東見買賣點錢問間門開關歡謝請給讓"
)


def find_encoding(file: File) -> str:
    """Return the encoding of a file that is not UTF-8. Raises InputError if it is not certain."""
    if (name := guess(file)) and name.startswith("utf-16"):
        return name
    sample = _sample(file)
    texts: dict[str, str] = {}
    for match in from_bytes(sample, cp_isolation=LIKELY):
        for name in (match.encoding, *match.could_be_from_charset):
            _decode_into(texts, name, sample)
    for name in ("cp1252", "cp932"):
        _decode_into(texts, name, sample)
    ranked = sorted(((explained(text), text, name) for text, name in texts.items()), reverse=True)
    certain = _certain(ranked)
    if certain and _is_text_in(file, certain):
        return encoding_name(certain)
    names = ", ".join(encoding_name(name) for _, _, name in ranked[:3])
    raise InputError(
        f"{file} is not UTF-8, and its encoding cannot be told for sure"
        + (f" (it may be {names})" if names else "")
        + f"; say it, as in {as_options({'encoding': 'windows-1252'})}"
    )


def _certain(ranked: list[tuple[tuple[float, float], str, str]]) -> str | None:
    if not ranked or ranked[0][0][0] < SURE:
        return None
    (_, frequent), _, name = ranked[0]
    rivals = [other for (share, other), _, _ in ranked[1:] if share > UNLIKELY]
    return name if not rivals or frequent > CLEARER * max(rivals) else None


def _decode_into(texts: dict[str, str], name: str, sample: bytes) -> None:
    """Add a reading, by its text: of encodings that read the same the more frequent stays."""
    if name not in LIKELY:
        return
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return
    known = texts.get(text)
    if known is None or LIKELY.index(name) < LIKELY.index(known):
        texts[text] = name


def _sample(file: File) -> bytes:
    """Return distinct lines that are not ASCII."""
    lines, size = dict[bytes, None](), 0
    with unpacked(file) as raw:
        while size < SAMPLE_BYTES and (line := raw.readline(PIECE)):
            if not line.isascii() and line not in lines:
                lines[line] = None
                size += len(line)
    return b"".join(lines)


def _is_text_in(file: File, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with unpacked(file) as raw:
        try:
            while piece := raw.read(PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


# --- how plausible a text is ----------------------------------------------------------------------


def explained(text: str) -> tuple[float, float]:
    """Return the share of characters beyond ASCII that one language explains, and a tie-breaker.

    That is the share of its frequent words or letters. The best language counts.
    """
    beyond = re.findall(r"[^\x00-\x7f]", text)
    if not beyond:
        return 1.0, 0.0
    places = [place.start() for place in re.finditer(r"[^\x00-\x7f]", text)]
    words = Counter(re.findall(r"\w+", text.lower()))
    letters = Counter(text.lower())
    cjk = _explained_cjk(beyond)
    return max([cjk, *(_by(one, text, places, words, letters) for one in LANGUAGES.values())])


def _by(
    language: Language, text: str, places: list[int], words: Counter[str], letters: Counter[str]
) -> tuple[float, float]:
    n_explained = sum(_fits(language, text, place) for place in places)
    is_latin = any(len(item) > 1 for item in language.frequent)
    counts = words if is_latin else letters
    n = words.total() if is_latin else len(places)
    frequent = sum(counts[item] for item in language.frequent)
    return round(n_explained / len(places), 3), round(frequent / max(n, 1), 3)


def _fits(language: Language, text: str, place: int) -> bool:
    """Return whether a character stands where it may: letters in words, symbols beside them."""
    character = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    is_inside = before.isalpha() and after.isalpha()
    if character in JOINERS:
        return True
    if character in SYMBOLS:
        return not is_inside
    if character.lower() not in language.letters and character not in language.letters:
        return False
    if character.isupper() and before.islower():
        return False
    is_latin = unicodedata.name(character, "").startswith("LATIN")
    if not is_latin and any(one.isascii() and one.isalpha() for one in (before, after)):
        return False  # no word is in two scripts
    return not (before.isdigit() or after.isdigit())


def _explained_cjk(beyond: list[str]) -> tuple[float, float]:
    n = len(beyond)
    kana = sum("\u3041" <= character <= "\u30ff" for character in beyond)
    hangul = sum(
        "\uac00" <= character <= "\ud7a3" and _is_common(character) for character in beyond
    )
    hanzi = [character for character in beyond if "\u4e00" <= character <= "\u9fff"]
    marks = sum("\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uff9f"
                for character in beyond)  # fmt: skip
    common = sum(character in COMMON_HANZI for character in hanzi)
    japanese = (kana + len(hanzi) + marks) / n if kana > n / 5 else 0.0
    korean = (hangul + marks) / n if hangul > n / 2 else 0.0
    chinese = (len(hanzi) + marks) / n if common > len(hanzi) / 10 and not kana else 0.0
    best = max(japanese, korean, chinese)
    return round(best, 3), round(max(kana, hangul, common) / n, 3)


def _is_common(syllable: str) -> bool:
    try:
        syllable.encode("euc_kr")
    except UnicodeEncodeError:
        return False
    return True
