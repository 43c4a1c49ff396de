"""Tables as people have them, drawn at random, with what stands in them: for tests of reading.

Encodings × dialects × shapes of labels × orders of columns × formats × languages. A table is
written as some well-known program writes it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENCODINGS = {
    "English": ["utf-8", "utf-8-sig", "utf-16", "cp1252", "iso8859_15", "ascii"],
    "German": ["utf-8", "utf-8-sig", "cp1252", "latin-1", "cp850", "mac_roman", "utf-16"],
    "French": ["utf-8", "cp1252", "iso8859_15", "utf-16-le"],
    "Spanish": ["utf-8", "cp1252", "latin-1"],
    "Polish": ["utf-8", "cp1250", "iso8859_2"],
    "Czech": ["utf-8", "cp1250", "iso8859_2"],
    "Turkish": ["utf-8", "cp1254"],
    "Russian": ["utf-8", "cp1251", "koi8_r", "cp866", "utf-16"],
    "Greek": ["utf-8", "cp1253"],
    "Japanese": ["utf-8", "cp932", "euc_jp", "utf-16"],
    "Chinese": ["utf-8", "gb18030", "big5", "utf-8-sig"],
    "Korean": ["utf-8", "cp949"],
}
PHRASES = {
    "English": "the food was great|I waited for an hour|it costs £20 – too much|a nice café|"
    "“never again” she said|it’s broken|would buy it again|the naïve résumé|not worth $5",
    "German": "die Qualität ist überraschend gut|leider enttäuschend für den Preis|schöne Größe|"
    "ärgerlich und zu spät|nie wieder|das Gerät läuft nicht|sehr schön|für 20 € zu teuer",
    "French": "très déçu, le produit est cassé|parfait, ça marche très bien|bonne qualité|"
    "un peu cher à mon goût|je ne l’achèterai pas|livré à l'heure|où est ma commande",
    "Spanish": "muy bueno, el niño está feliz|la señal es débil|no funcionó|¡qué bonito!|"
    "llegó tarde y además roto|es más pequeño|el año que viene",
    "Polish": "świetna jakość, polecam każdemu|źle działa, zwróciłem|bardzo ładny, żółty kolor|"
    "nie jest zły|przesyłka się spóźniła|mógł być lepszy",
    "Czech": "příliš žluťoučký kůň|výborné, děkuji|špatná kvalita|není to ono|zboží přišlo pozdě|"
    "můžu jen doporučit",
    "Turkish": "çok güzel, teşekkürler|kötü bir ürün, iade ettim|şahane ışık|gayet iyi|"
    "kargo geç geldi ama değdi|bir daha almam",
    "Russian": "очень плохое качество|отличный товар, спасибо|не рекомендую никому|всё хорошо|"
    "доставка была быстрой|цена слишком высокая",
    "Greek": "πολύ καλό προϊόν|δεν μου άρεσε καθόλου|έφτασε αργά και χαλασμένο|το συνιστώ|"
    "η ποιότητα είναι κακή",
    "Japanese": "とても良い商品です|品質が悪い、残念です|もう買いません|配送が早かった|"
    "また買いたいと思います",
    "Chinese": "质量很好，非常满意|太差了，我不会再买|物流很快|这个东西不是我想要的|"
    "给孩子买的，他很喜欢",
    "Korean": "아주 좋은 제품입니다|품질이 나빠요|배송이 빨랐습니다|다시는 안 살 거예요",
}
TRADITIONAL = "質量很好，非常滿意|太差了，我不會再買|這個東西不是我想要的|給孩子買的，他很喜歡"
LABELS: dict[str, Sequence[str]] = {
    "words": ["pos", "neg"],
    "sentences": ["very good", "rather bad", "don't know"],
    "numbers": ["0", "1", "2"],
    "bools": ["True", "False"],
    "many": ["a|b", "a", "b|c"],
    "lists": ["['a']", "['a', 'b']"],
    "json": ['["a"]', '["a", "b"]'],
    "codes": ["A-1", "B/2", "C 3"],
}
NAMES = [("text", "label"), ("review", "sentiment"), ("message", "class"), ("v2", "v1")]


@dataclass(frozen=True)
class Table:
    """A table in a file, and what it holds."""

    path: Path
    text: str
    """Name of the column of texts, as a reader finds it."""
    label: str
    rows: list[tuple[str, str]]
    """Text and label of each row."""
    about: str


def generate(seed: int, folder: Path) -> Table:
    """Write the table of a seed into a folder."""
    draw = random.Random(seed)
    language = draw.choice(list(ENCODINGS))
    encoding = draw.choice(ENCODINGS[language])
    form = draw.choice(["csv"] * 12 + ["tsv"] * 4 + ["json"] * 4)
    kind = draw.choice(list(LABELS))
    shape, write = draw.choice(WRITERS[form])
    phrases = (TRADITIONAL if encoding == "big5" else PHRASES[language]).split("|")
    n_rows = draw.choice([6, 14, 24, 40, 90])
    rows = [
        (_text(draw, phrases, encoding, shape), draw.choice(LABELS[kind])) for _ in range(n_rows)
    ]
    content, text, label = write(draw, rows, shape)
    ending = {"json": draw.choice([".json", ".json.gz"]), "csv": draw.choice([".csv", ".csv.gz"])}
    path = folder / f"{seed}{ending.get(form, '.tsv')}"
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return Table(path, text, label, rows, f"{language} {encoding} {path.name} {shape} {kind}")


def _text(draw: random.Random, phrases: list[str], encoding: str, shape: str) -> str:
    """Draw a text that the shape can hold at all."""
    text = ". ".join(draw.choices(phrases, k=draw.randint(1, 3)))
    odd = draw.random()
    if odd < 0.15:
        text = f'{draw.choice(["he said", "sic", "1)"])} "{text}" twice'
    elif odd < 0.2:
        text = f'"{text}'
    elif odd < 0.3:
        text = f"{text}, or so; 5|6"
    elif odd < 0.32:
        text += f' "{draw.choice(phrases)}"'
    elif odd < 0.35:
        text += draw.choice([" :-\\ ", " C:\\dir", " \\o/"]) + "end"
    elif odd < 0.45 and "lines" in shape:
        text += "\n" + draw.choice(phrases) + ", yes"
    if encoding == "ascii":
        text = text.encode("ascii", "ignore").decode() or "none"
    else:
        text = text.encode(encoding, "ignore").decode(encoding).lstrip("\ufeff")
    return " ".join(text.split(" ")).strip() or "none"


def _columns(
    draw: random.Random, rows: list[tuple[str, str]], header: bool
) -> tuple[list[list[str]], str, str]:
    """Return records with the header first, in some order, with further columns."""
    text, label = draw.choice(NAMES)
    columns = {text: [one for one, _ in rows], label: [one for _, one in rows]}
    if draw.random() < 0.4:
        columns["id"] = [str(i) for i in range(len(rows))]
    names = list(columns)
    draw.shuffle(names)
    records = [list(record) for record in zip(*(columns[name] for name in names), strict=True)]
    empty = 0 if not header or draw.random() < 0.8 else 2
    records = [[*record, *[""] * empty] for record in records]
    if header:
        return [[*names, *[""] * empty], *records], text, label
    places = {name: f"column_{place}" for place, name in enumerate(names, 1)}
    return records, places[text], places[label]


Written = tuple[str, str, str]
Write = Callable[[random.Random, list[tuple[str, str]], str], Written]


def _by_csv(**how: Any) -> Write:
    def write(draw: random.Random, rows: list[tuple[str, str]], shape: str) -> Written:
        records, text, label = _columns(draw, rows, header="headless" not in shape)
        out = io.StringIO()
        end = draw.choice(["\n", "\r\n"])
        csv.writer(out, lineterminator=end, **how).writerows(records)
        return out.getvalue() + draw.choice(["", "", end]), text, label

    return write


def _joined(delimiter: str, quoted: Callable[[str], str] = str) -> Write:
    def write(draw: random.Random, rows: list[tuple[str, str]], shape: str) -> Written:
        records, text, label = _columns(draw, rows, header="headless" not in shape)
        lines = [delimiter.join(map(quoted, record)) for record in records]
        return "\n".join(lines) + draw.choice(["", "\n"]), text, label

    return write


def _spark(cell: str) -> str:
    """Write as df.write.csv does: quoted if need be, quotes and backslashes escaped."""
    if not {'"', ",", "\n"} & set(cell):
        return cell
    return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _blanked(cell: str) -> str:
    quoted = '"' + cell.replace('"', '""') + '"'
    return quoted if {'"', ",", "\n"} & set(cell) else cell


def _json(layout: str) -> Write:
    def write(draw: random.Random, rows: list[tuple[str, str]], shape: str) -> Written:
        text, label = draw.choice(NAMES)
        items = [{text: one, label: other} for one, other in rows]
        show = draw.choice([True, False])
        if layout == "lines":
            content = "\n".join(json.dumps(item, ensure_ascii=show) for item in items)
        else:
            value = items if layout == "array" else {"version": "1", "data": items}
            content = json.dumps(value, ensure_ascii=show, indent=draw.choice([None, 1]))
        return content, text, label

    return write


WRITERS: dict[str, list[tuple[str, Write]]] = {
    "csv": [
        ("excel, lines", _by_csv()),
        ("excel, lines, headless", _by_csv()),
        ("all quoted, lines", _by_csv(quoting=csv.QUOTE_ALL)),
        ("texts quoted", _by_csv(quoting=csv.QUOTE_NONNUMERIC)),
        ("semicolons, lines", _by_csv(delimiter=";")),
        ("pipes, lines", _by_csv(delimiter="|")),
        ("tabs, lines", _by_csv(delimiter="\t")),
        ("spark", _joined(",", _spark)),
        ("backslashes", _by_csv(doublequote=False, escapechar="\\")),
        ("blanks", _joined(", ", _blanked)),
        ("no quoting, tabs", _joined("\t")),
        ("naive", _joined(",")),
        ("naive semicolons, headless", _joined(";")),
        ("apostrophes", _by_csv(quotechar="'")),
        ("escaped, not quoted", _by_csv(quoting=csv.QUOTE_NONE, escapechar="\\", quotechar=None)),
    ],
    "tsv": [
        ("excel, lines", _by_csv(delimiter="\t")),
        ("no quoting", _joined("\t")),
        ("no quoting, headless", _joined("\t")),
        ("all quoted, lines", _by_csv(delimiter="\t", quoting=csv.QUOTE_ALL)),
    ],
    "json": [("lines of json", _json("lines")), ("array", _json("array")), ("data", _json("data"))],
}
