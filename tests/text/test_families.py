"""Every family's tokenizer equals transformers' on 500 lines in more than 20 scripts, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.text.compare import assert_round_trip, assert_same
from tests.text.corpus import LINES
from tests.text.vocabularies import publish

FAMILIES = (
    *("bert", "distilbert", "electra", "gpt2", "roberta", "bart", "openai-gpt", "ctrl", "xlm"),
    *("albert", "xlnet", "t5", "camembert", "xlm-roberta", "mbart"),
)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in folders:
            folders[model_type] = publish(model_type, tmp_path_factory.mktemp(model_type))
        return folders[model_type]

    return get


@pytest.mark.parametrize("model_type", FAMILIES)
def test_equal_to_transformers(model_type: str, published: Any, tmp_path: Path) -> None:
    tokenizer = assert_same(published(model_type), LINES)
    assert_round_trip(tokenizer, tmp_path / "saved", LINES)
