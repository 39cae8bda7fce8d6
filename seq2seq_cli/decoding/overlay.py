"""Options from several places: what was only wished for gives way to what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seq2seq_cli.recipe.checks import merge_generation
from seq2seq_cli.recipe.generation import SAMPLING_OPTIONS

#: transformers' names of options that have shorter ones here
OTHER_NAMES = {"prompt_lookup_num_tokens": "prompt_lookup"}
#: and of one that is no wish: files keep what transformers' own search for a good number began with
ASKED_NAMES = {**OTHER_NAMES, "num_assistant_tokens": "draft_tokens"}
_GROUPS = ("num_beam_groups", "diversity_penalty")
_WORDS = ("force_words", "force_words_ids")
_GUESSES = ("prompt_lookup", "draft_model", "draft_tokens")


def overlay(wished: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options ``given`` over those ``wished`` for by a checkpoint, a default preset or a recipe.

    What was only wished for gives way where it contradicts them: beams to sampling and sampling to beams,
    several outputs to another number of beams, one strategy to another, guesses to a strategy without them,
    the shortest length to a longest one below it and the longest to a shortest one above it.
    """
    wished, given = renamed(wished, OTHER_NAMES), renamed(given, ASKED_NAMES)
    asked = merge_generation({"penalty_alpha": wished.get("penalty_alpha")}, given)
    if given.get("penalty_alpha") is None:
        asked.pop("penalty_alpha", None)
    left = _compatible(wished, asked)
    if asked.get("do_sample") and "num_beams" not in asked:
        left.pop("num_beams", None)
    if _is_more(asked.get("num_beams"), 1) and "do_sample" not in asked:
        left["do_sample"] = False
    if "num_beams" in asked and "num_return_sequences" not in asked:
        left.pop("num_return_sequences", None)
    for least, most in (("min_new_tokens", "max_new_tokens"), ("min_length", "max_length")):
        if _is_more(left.get(least), asked.get(most)):
            left[least] = asked[most]
        if _is_more(asked.get(least), left.get(most)):
            del left[most]
    if not asked.get("do_sample", left.get("do_sample")):
        # files keep these beside do_sample: false, where they mean nothing
        contrastive = asked.get("penalty_alpha", left.get("penalty_alpha"))
        kept = ("top_k",) if contrastive else ()
        left = {key: value for key, value in left.items() if key not in SAMPLING_OPTIONS or key in kept}
    merged = {**left, **asked}
    if merged.get("penalty_alpha") or _is_more(merged.get("num_beams"), 1):
        merged = {key: value for key, value in merged.items() if key not in _GUESSES or key in asked}
    return merged


def renamed(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The options with ``names`` replaced; where one has both of its names, ours counts."""
    ours = {key: value for key, value in options.items() if key not in names}
    for other, name in names.items():
        if ours.get(name) is None and other in options:
            ours[name] = options[other]
    return ours


def _compatible(wished: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was ``wished`` for, without the parts of a strategy that the one ``asked`` for excludes."""
    left, gone = dict(wished), set[str]()
    copying = bool(asked.get("prompt_lookup"))
    drafting = bool(asked.get("draft_model")) and asked.get("draft_tokens") != 0
    contrastive = bool(asked.get("penalty_alpha"))
    sampled = bool(asked.get("do_sample"))
    forced = any(asked.get(name) for name in _WORDS)
    grouped = _is_more(asked.get("num_beam_groups"), 1)
    if contrastive:
        gone |= {"do_sample", "num_beams", "num_return_sequences", *_GROUPS, *_WORDS}
    elif left.get("penalty_alpha") and (
        sampled or forced or grouped or copying or drafting or _is_more(asked.get("num_beams"), 1)
    ):
        gone |= {"penalty_alpha", "top_k"}
    if copying or drafting:
        gone |= {"num_beams", *_GROUPS, *_WORDS}
        gone |= {"draft_model", "draft_tokens"} if copying else {"prompt_lookup"}
        if not asked.get("do_sample", left.get("do_sample")):
            gone |= {"num_return_sequences"}
    if sampled:
        gone |= {*_GROUPS, *_WORDS}
    if forced:
        gone |= {"do_sample", *_GROUPS}
    if grouped:
        gone |= {"do_sample", *_WORDS}
    groups, beams = left.get("num_beam_groups"), asked.get("num_beams")
    if isinstance(groups, int) and isinstance(beams, int) and groups > 0 and beams % groups:
        gone |= set(_GROUPS)
    return {name: value for name, value in left.items() if name not in gone}


def _is_more(value: Any, other: Any) -> bool:
    """value > other, where both are numbers; values are checked later."""
    return isinstance(value, (int, float)) and isinstance(other, (int, float)) and value > other
