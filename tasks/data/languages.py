"""Letters and frequent words of languages, and the encodings they are written in.

Only what tells encodings apart (sniff_encoding.py): letters beyond ASCII, in lower case.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """Letters and frequent words of a language."""

    letters: frozenset[str]
    frequent: frozenset[str]
    """Its most frequent words or, without a Latin script, letters."""
    is_latin: bool


def _latin(letters: str, words: str) -> Language:
    return Language(frozenset(letters), frozenset(words.split()), True)


def _script(letters: str, frequent: str) -> Language:
    return Language(frozenset(letters), frozenset(frequent), False)


LANGUAGES = {
    "English": _latin(
        "éèêàçïöüñáíóâôë", "the and to of is in it for this that was you not my with"
    ),
    "German": _latin("äöüßéà", "der die das und ist nicht ein eine mit zu ich sehr für auf es im"),
    "French": _latin(
        "àâæçéèêëîïôœùûüÿ", "le la les de et est un une pas que pour très je ce des en du au"
    ),
    "Spanish": _latin("áéíñóúüçªº", "el la los de que y en un una no es muy por con para se lo"),
    "Portuguese": _latin("àáâãçéêíóôõúüªº", "o a os de que e em um uma não é para com muito do"),
    "Italian": _latin("àèéìíîòóùú", "il la di che e un una non per molto con sono del le è"),
    "Dutch": _latin("éëïöüèáó", "de het een en van is niet dat ik op te met voor zeer zijn"),
    "Nordic": _latin("åäöæøéüà", "och det är en att inte jeg er og ikke som med på en av den til"),
    "Icelandic": _latin("áðéíóúýþæö", "og að er ekki í sem á það við með"),
    "Polish": _latin("ąćęłńóśźż", "nie i w z na jest się do to że bardzo jak za po co"),
    "Czech": _latin("áčďéěíňóřšťúůýžĺľŕôä", "a je se na v to že s i ne si do velmi za aj sa som"),
    "Hungarian": _latin("áéíóöőúüű", "a az és nem is hogy egy van ez jó volt de meg nagyon"),
    "Romanian": _latin("ăâîșțşţ", "și si de la nu este în un o cu pe foarte mai ce din"),
    "Croatian": _latin("čćđšž", "i je u se na da ne za su vrlo od s sam ali"),
    "Turkish": _latin("çğıöşüâîûi̇", "ve bir bu çok için da de ne ama en iyi daha ile"),
    "Baltic": _latin("āčēģīķļņšūžąęėįųõäöü", "ir un ja on ei labai yra nav kas see par bet ka"),
    "Russian": _script("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґўј", "оеаинтсрвл"),
    "Greek": _script("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ", "αοιετνσηρπ"),
    "Hebrew": _script("אבגדהוזחטיכלמנסעפצקרשתךםןףץ", "יוהלאתרמבש"),
    "Arabic": _script("ءآأؤإئابةتثجحخدذرزسشصضطظعغـفقكلمنهوىيپچژگ،؛؟", "اليمونرتبة"),
}
WESTERN = (
    "English", "German", "French", "Spanish", "Portuguese", "Italian", "Dutch", "Nordic",
    "Icelandic",
)  # fmt: skip
CENTRAL = ("Polish", "Czech", "Hungarian", "Romanian", "Croatian", "German")
LIKELY: dict[str, tuple[str, ...]] = {
    "cp1252": WESTERN,
    "iso8859_15": WESTERN,
    "cp1250": CENTRAL,
    "iso8859_2": CENTRAL,
    "cp1251": ("Russian",),
    "koi8_r": ("Russian",),
    "cp866": ("Russian",),
    "cp1253": ("Greek",),
    "cp1254": ("Turkish",),
    "cp1255": ("Hebrew",),
    "cp1256": ("Arabic",),
    "cp1257": ("Baltic",),
    "cp850": WESTERN,
    "mac_roman": WESTERN,
    "cp932": ("Japanese",),
    "euc_jp": ("Japanese",),
    "gb18030": ("Chinese",),
    "big5": ("Chinese",),
    "cp949": ("Korean",),
}
"""Encodings with their languages, the most usual of those that read a text the same first."""
SYMBOLS = frozenset("£€¥¢§°©®™•–—…“”„«»‹›‚¿¡½¼¾²³µ×±·№\u00a0")
"""Characters that stand in any language, and not between letters."""
JOINERS = frozenset("’‘´·–—\u00ad")
"""Those that do."""
COMMON_HANZI = frozenset(
    "的一是不了人我在有他这中大来上个国和也子时道说出而要于就下得可你年生会自着去之过家学对她里后小么心"
    "多天能好都然没日起还发成事只作当想看文手十用主行方又如前所本见经头面公同三已老从动两长很非常差快质量"
    "這個來國時說於會過對裡後麼沒還發當樣經頭動長為們無電話車書東見買賣點錢問間門開關歡謝請給讓"
)
