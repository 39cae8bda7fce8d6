"""Write data/transfo_xl.json: Transformer-XL's published tokenizer on the corpus.

transformers 5 has it no more, so this runs by hand in an environment with transformers 4.30.2 and sacremoses:

    python tests/text/make_fixtures.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.text.corpus import LINES
from tests.text.vocabularies import word_list

#: settings and how many lines they are tried on
SETTINGS: list[tuple[dict[str, Any], int]] = [
    ({}, 500),
    ({"lower_case": True}, 500),
    ({"delimiter": ""}, 90),
    ({"language": "fr"}, 90),
]
TARGET = Path(__file__).parent / "data" / "transfo_xl.json"


def main() -> None:
    from transformers import TransfoXLTokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = word_list(folder)
        cases = []
        for settings, count in SETTINGS:
            theirs = TransfoXLTokenizer(vocab_file=str(folder / "vocab.txt"), **settings)
            theirs.sanitize_special_tokens()  # as from_pretrained does
            ids = [theirs(line)["input_ids"] for line in LINES[:count]]
            decoded = [
                theirs.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                for row in ids
            ]
            cases.append({"settings": settings, "ids": ids, "text": decoded})
    TARGET.parent.mkdir(exist_ok=True)
    content = {"words": words, "lines": LINES, "cases": cases}
    TARGET.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
