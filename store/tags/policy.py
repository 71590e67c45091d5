"""The rules that combine the genres of a file with those that a model predicts: nothing is read or written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from store.tags.genre_map import GenreMap, validate_genre_name
from store.tags.schema import CUSTOM_TAG_NAMES
from store.tags.vocabulary.spelling import spelling_key, split_strong

CONFIDENCE, MODEL = CUSTOM_TAG_NAMES
FieldPolicy = Literal["never", "fill", "replace"]
NO_MAP = GenreMap()
PLACEHOLDERS = (
    "Unknown",
    "Unknown Genre",
    "Undefined",
    "Unspecified",
    "Uncategorized",
    "None",
    "No Genre",
    "N/A",
    "Genre",
    "Default",
    "Other",
    "Misc",
    "Miscellaneous",
)


class TagPolicy(BaseModel, frozen=True, extra="forbid"):
    """Which fields of a file may be written, and which genres its owner keeps."""

    policy: Literal["fill", "replace", "append"] = Field(
        "fill",
        description="fill: only files that have no genre; append: add what is missing; replace: all files",
    )
    never_touch: tuple[str, ...] = Field(
        (), description="Genres of your own: a file that has one of them, in any spelling, is left unchanged"
    )
    placeholders: tuple[str, ...] = Field(
        PLACEHOLDERS,
        description="Words that count as no genre, in any spelling; a file that has only these is one without a genre",
    )
    respell: bool = Field(
        False,
        description="Write a genre again if only its spelling differs from the model's or the map's "
        "(replace, append)",
    )
    confidence_field: FieldPolicy = Field(
        "never", description=f"Write the model's confidence into a field of its own, {CONFIDENCE}"
    )
    model_field: FieldPolicy = Field(
        "never", description=f"Write the model's version into a field of its own, {MODEL}"
    )

    @field_validator("never_touch", "placeholders")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            validate_genre_name(name)
        return names


def keep_reason(
    old_genres: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str] | None:
    """Return reason and detail if a file stays as it is, whatever a model predicts; else None.

    A text that joins several genres has each of them.
    """
    guarded = {genre_map.key(name) for name in policy.never_touch}
    found = [text for text in old_genres if guarded & genre_map.keys_in(text)] if guarded else []
    if found:
        return "protected", "; ".join(found)
    if policy.policy == "fill" and present_genres(old_genres, policy):
        return "has-genre", "; ".join(old_genres)
    return None


def present_genres(old_genres: Sequence[str], policy: TagPolicy) -> tuple[str, ...]:
    """Return the genres that a file has, without blank texts; none if all are placeholders."""
    texts = tuple(text for text in old_genres if text.strip())
    none = _placeholder_keys(policy.placeholders)
    return () if all(_is_placeholder(text, none) for text in texts) else texts


def new_genres(
    old_genres: Sequence[str], predicted: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, ...] | None:
    """Return all genres that a file is to have, in order; None if nothing changes.

    `predicted` are the model's names, the most probable first. A difference in spelling alone is no change, unless
    `respell` is set, and neither is another name of the shipped list, or that genres are joined in one text; another
    order is one, since most players show the first genre. Blank texts are not kept, and placeholders only beside a
    genre. What is kept stays as it is, joined genres too.
    """
    if keep_reason(old_genres, policy, genre_map):
        return None
    mapped = _without_repeats(genre_map.map_genres(predicted), genre_map.key)
    if not mapped:
        return None
    present = present_genres(old_genres, policy)
    match policy.policy:
        case "fill" | "replace":
            changed = _replace(present, mapped, policy, genre_map)
        case "append":
            changed = _append(present, predicted, mapped, policy, genre_map)
    return None if changed == tuple(text for text in old_genres if text.strip()) else changed


def unchanged_reason(
    old_genres: Sequence[str], predicted: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str]:
    """Return reason and detail for a file that `new_genres` does not change."""
    assert new_genres(old_genres, predicted, policy, genre_map) is None, "it would be changed"
    left = keep_reason(old_genres, policy, genre_map)
    if left:
        return left
    if predicted and not genre_map.map_genres(predicted):
        return "mapped-to-nothing", "; ".join(predicted)
    return "has-genre", "; ".join(old_genres)


def custom_tags_to_write(
    confidence: float | None, model_version: str, old_custom_tags: Mapping[str, str], policy: TagPolicy
) -> dict[str, str]:
    """Return the custom tags to write beside the genres, by name: only those that change."""
    fields = {
        CONFIDENCE: (policy.confidence_field, None if confidence is None else f"{confidence:.2f}"),
        MODEL: (policy.model_field, model_version),
    }
    custom_tags = {}
    for name, (field_policy, value) in fields.items():
        old = old_custom_tags.get(name, "")
        if value and value != old and (field_policy == "replace" or (field_policy == "fill" and not old)):
            custom_tags[name] = value
    return custom_tags


@cache
def _placeholder_keys(placeholders: tuple[str, ...]) -> frozenset[str]:
    return frozenset(spelling_key(name) for name in placeholders)


def _is_placeholder(text: str, placeholder_keys: frozenset[str]) -> bool:
    parts = split_strong(text)
    return spelling_key(text) in placeholder_keys or (
        bool(parts) and all(spelling_key(part) in placeholder_keys for part in parts)
    )


def _replace(
    present: tuple[str, ...], mapped: tuple[str, ...], policy: TagPolicy, genre_map: GenreMap
) -> tuple[str, ...]:
    wanted = [genre_map.key(name) for name in mapped]
    had = [key for text in present for key in genre_map.values(text, wanted)]
    if list(dict.fromkeys(had)) != wanted:
        return mapped
    spelled = [genre_map.spelled_key(name) for name in mapped]
    is_respelling = list(dict.fromkeys(map(genre_map.spelled_key, present))) == spelled
    return mapped if policy.respell and is_respelling else present


def _append(
    present: tuple[str, ...],
    predicted: Sequence[str],
    mapped: tuple[str, ...],
    policy: TagPolicy,
    genre_map: GenreMap,
) -> tuple[str, ...]:
    """Add what is missing; the names that a map gives to predicted genres replace their old ones."""
    renamed = genre_map.renamed(predicted)
    known = {key for text in present if spelling_key(text) not in renamed for key in genre_map.keys_in(text)}
    result: list[str] = []
    for text in present:
        if spelling_key(text) not in renamed:
            result.append(text)
            continue
        added = [name for name in renamed[spelling_key(text)] if genre_map.key(name) not in known]
        result += _without_repeats(added, genre_map.key)
        known |= {genre_map.key(name) for name in added}
    if policy.respell:
        name_of = {genre_map.spelled_key(name): name for name in mapped}
        respelled = (
            name_of.get(genre_map.spelled_key(text), genre_map.preferred_name(text)) for text in result
        )
        result = [*_without_repeats(respelled, genre_map.spelled_key)]
    return (*result, *(name for name in mapped if genre_map.key(name) not in known))


def _without_repeats(names: Iterable[str], key: Callable[[str], str]) -> tuple[str, ...]:
    """Return the first of all names that have one key."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(key(name), name)
    return tuple(first.values())
