"""Every strategy from the command line, from a recipe and from Python: the same texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run

STRATEGIES = {
    "beam sampling": {"num_beams": 3, "top_p": 0.9, "seed": 4},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 3.0},
    "phrases": {"num_beams": 6, "force_words": ["tea|coffee", "who"]},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
}
LINES = ["who sells tea", "", "list all the orders of may", "cake"]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kind", ["pair", "stack"])
def test_the_same_from_everywhere(
    name: str, kind: str, s2s: Run, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    import seq2seq_cli
    from seq2seq_cli.recipe import yaml12
    from seq2seq_cli.text.lines import one_line

    folder = request.getfixturevalue(f"{kind}_folder")
    options = {**STRATEGIES[name], "min_new_tokens": 8, "max_new_tokens": 16}
    flags: list[object] = []
    for key, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            flags += ["--" + key.replace("_", "-"), each]
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n")
    done = s2s("generate", "-m", folder, "-i", "in.txt", "--batch-tokens", "64", *flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")[:-1]
    assert len(lines) == len(LINES)
    assert lines[1] == ""
    section = {"model": {"encoder": str(folder)}, "generation": options}
    (tmp_path / "r.yaml").write_text(yaml12.dump(section))
    again = s2s("generate", "-m", folder, "--recipe", "r.yaml", "-i", "in.txt")
    assert again.stdout == done.stdout, again.stderr
    texts = seq2seq_cli.load(folder).generate(LINES, **options)
    assert [one_line(row[0]) for row in texts] == lines
    plain = s2s("generate", "-m", folder, "-i", "in.txt", "--min-new-tokens", "8", "--max-new-tokens", "16")
    assert plain.stdout != done.stdout
    if name == "phrases":
        # a prompt's own words count
        whole = [
            (source if kind == "stack" else "") + line for source, line in zip(LINES, lines, strict=True)
        ]
        assert all("who" in text and ("tea" in text or "coffee" in text) for text in whole if text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-beams", "4", "--num-beam-groups", "3"), b"num_beam_groups 3 does not divide num_beams 4"),
        (("--num-beams", "1", "--force-words", "tea"), b"force_words needs beam search"),
        (("--penalty-alpha", "0.6", "--top-k", "4", "--num-beams", "3"), b"does not go with num_beams 3"),
        (("--penalty-alpha", "0.6", "--top-k", "4", "--top-p", "0.5"), b"does not go with sampling"),
        (("--penalty-alpha", "0.6", "--top-k", "4", "--preset", "beam"), b"does not go with num_beams"),
        (("--num-beam-groups", "2", "--num-beams", "4", "--diversity-penalty", "0"), b"diversity_penalty"),
        (
            (
                "--diversity-penalty",
                "0.5",
            ),
            b"diversity_penalty 0.5 has no effect without groups",
        ),
        (("--num-beam-groups", "2", "--num-beams", "4"), b"needs a diversity_penalty"),
        (("--force-words", "tea"), b"force_words needs beam search"),
        (("--penalty-alpha", "0.5"), b"penalty_alpha needs top_k"),
        (("--penalty-alpha", "nan", "--top-k", "4"), b"penalty_alpha must be a finite number"),
        (("--force-words", "", "--num-beams", "4"), b"force_words.0 must be some text"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_the_model_loads(
    flags: tuple[str, ...], message: bytes, s2s: Run, stack_folder: Path, tmp_path: Path
) -> None:
    """The weights are no file of weights at all, and nobody finds out."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in stack_folder.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(b"?" if file.suffix == ".safetensors" else file.read_bytes())
    done = s2s("generate", "-m", broken, "who sells", *flags)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
