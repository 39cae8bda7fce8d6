"""500 lines in more than 20 scripts, ours, for comparing tokenizers; the same on every machine."""

from __future__ import annotations

import random

SENTENCES = {
    "latin": [
        "The quick brown fox jumps over the lazy dog.",
        "How many people isn't it, they've said, 'quoted' .  done !",
        "Größe über Straße, naïve café — Ärger in Zürich",
        "Şeful ONU declară că nu există o soluţie, țară și oraș",
        "Příliš žluťoučký kůň úpěl ďábelské ódy; Łódź, Gdańsk",
        "Bạn có thể nói tiếng Việt không? İstanbul'da ığdır",
        "L'été, l'homme qu'il a vu « ici » : 5 000,50 € ; nº 3",
        "I cannot, gonna, wanna: Mr. Smith vs. Dr. Jones et al. at 5 p.m. in the U.S.A.",
    ],
    "cyrillic": [
        "Съешь же ещё этих мягких французских булок, да выпей чаю.",
        "Їжак і ґава; ћирилица — Ўзбек",
    ],
    "greek": ["Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΟΔΥΣΣΕΥΣ", "ἐν ἀρχῇ ἦν ὁ λόγος; τί;"],
    "arabic": ["هذه جملة باللغة العربية، أليس كذلك؟", "مُحَمَّدٌ ١٢٣ لا لله", "این یک متن فارسی است که می‌خواهم"],
    "hebrew": ["דג סקרן שט בים מאוכזב ולפתע מצא חברה.", "שָׁלוֹם עֲלֵיכֶם"],
    "devanagari": ["यह हिन्दी में एक वाक्य है।", "क्षत्रिय ज्ञान श्री १२३"],
    "bengali": ["এটি বাংলায় একটি বাক্য।", "ক্ষ ত্র ৪৫"],
    "tamil": ["இது தமிழில் ஒரு வாக்கியம்.", "யாதும் ஊரே யாவரும் கேளிர்"],
    "thai": ["นี่คือประโยคภาษาไทย", "น้ำใจ ๑๒๓ เก้าอี้"],
    "han": ["你好，世界。今天天气很好！", "我「喜歡」讀書：《紅樓夢》（１９８０）……", "𠀀𪚥龘"],
    "kana": ["これは日本語の文です。カタカナとひらがな、ﾊﾝｶｸ", "がぎぐ か\u3099き\u3099 ー・〜"],
    "hangul": ["이것은 한국어 문장입니다.", "\u1112\u1161\u11ab\u1100\u1173\u11af ㄱㄴㄷ"],
    "georgian": ["ეს არის წინადადება ქართულად.", "ᲐᲑᲒ ⴀⴁⴂ"],
    "armenian": ["Սա նախադասություն է հայերեն։", "և ﬓ ԵՒ"],
    "ethiopic": ["ይህ በአማርኛ የተጻፈ ዓረፍተ ነገር ነው።", "፩፪፫ ሰላም፡ለዓለም"],
    "khmer": ["នេះជាប្រយោគជាភាសាខ្មែរ។", "ក្រុម ១២៣"],
    "tibetan": ["འདི་ནི་བོད་ཡིག་གི་ཚིག་གྲུབ་ཅིག་རེད།", "༡༢༣ ཨོཾ"],
    "cherokee": ["ᎠᏴ ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ", "ꭰꭱꭲ Ꮳ"],
    "telugu": ["ఇది తెలుగులో ఒక వాక్యం."],
    "sinhala": ["මෙය සිංහල වාක්‍යයකි."],
    "myanmar": ["ဒါက မြန်မာ ဝါကျတစ်ခုပါ။"],
    "lao": ["ນີ້ແມ່ນປະໂຫຍກພາສາລາວ"],
    "mongolian": ["ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ"],
    "emoji": ["👩‍👩‍👧 😀🏳️‍🌈 👍🏽 end", "🇩🇪🇫🇷 1️⃣ ☺️ ❤ 🧑🏿‍🚀"],
    "signs": [
        "∑∫√∞ ≠ ≤ x² H₂O ½ Ⅷ ﬁ ™ ℃ №",
        "℡ ㍿ ㌔ ㎏ ① ⒈ ²³ ſ ẞ ß ǅ",
        "「『【〔〈《》〉〕】』」～━…’‘”“„–—´",
    ],
    "code": [
        'SELECT name FROM t WHERE a >= 3 AND b = "x" -- ok',
        "if (x != y) { return a[i] * 2; } // c++ && d || e",
        "https://example.org/a/b?c=d&e=%20f#g user.name+tag@mail.example.com @handle #tag",
        "<p class=\"x\">&amp; &lt; <br/></p> $5,000.00 1.234,56 3-4 a-b-c e-mail ``quoted''",
    ],
    "odd": [
        "",
        " ",
        "\t",
        "\u3000\u00a0\u2003",
        "  two  spaces  and   more    ",
        "tab\ttab\tnewline\nnewline\ncarriage\rreturn\r\n",
        "NUL\x00 SOH\x01 DEL\x7f ESC\x1b FS\x1c US\x1f NEL\x85 end",
        "zero\u200bwidth\u200c\u200d\u2060\ufeff soft\u00adhyphen \u202eRTL\u202c",
        "\u2028line\u2029par \u2009thin",
        "e\u0301 \u00e9 a\u0323\u0302 \u0301alone q\u0307\u0323 Z\u0351\u036b\u0343\u036a o\u0338",
        "\ue000 private \ufffd \ufffe? \U0010ffff \u0378 unassigned",
        "x" * 300,
        "the " * 120,
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab" * 9,
        "....!!!???,,,;;;:::---___===+++***///\\\\\\|||~~~^^^``` '''''' \"\"\"",
        "[CLS] [MASK] [SEP] <s> </s> <mask> <pad> <unk> <|endoftext|> <extra_id_0> <sep><cls> <eop> en_XX",
        "<special1> <special5>x<eos> <formula> a</w> b@@ ##c ▁d _e </w>",
        "one\n<mask>\ntwo  <mask>  three ＜mask＞ ＜ｍａｓｋ＞ <MASK> [mask] ［MASK］",
        "ＦＵＬＬ　ｗｉｄｔｈ １２３．４５％ ，。： ； ．",
        "!",
        "a",
        "\u0301",
        "ß",
        "。",
        "▁",
        "'",
        "-",
        "..",
        "\u200d",
    ],
}
_JOINTS = (
    " ",
    " ",
    " ",
    "  ",
    "",
    ", ",
    ". ",
    "\u00a0",
    "\t",
    "/",
    "-",
    "'",
    " (",
    ") ",
    "\u200b",
    "…",
    "\n",
)
COUNT = 500


def lines() -> list[str]:
    """Every sentence once, then words of all scripts mixed, to 500 lines."""
    found = [sentence for group in SENTENCES.values() for sentence in group]
    words = {
        script: [w for s in group for w in s.split(" ") if len(w) < 40] for script, group in SENTENCES.items()
    }
    scripts = sorted(words)
    choice = random.Random(20)
    while len(found) < COUNT:
        chosen = choice.sample(scripts, choice.choice((1, 1, 1, 2, 3)))
        line = ""
        for _ in range(choice.randint(1, 9)):
            word = choice.choice(words[choice.choice(chosen)])
            line += choice.choice((word, word, word, word.upper(), word.title())) + choice.choice(_JOINTS)
        found.append(line)
    return found


LINES = lines()
