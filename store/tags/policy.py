"""What becomes of the genres a file has when a model tells others: pure rules, nothing is read or written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from store.tags.genre_map import GenreMap, validate_genre_name
from store.tags.schema import CUSTOM_TAG_NAMES

CONFIDENCE, MODEL = CUSTOM_TAG_NAMES
FieldPolicy = Literal["never", "fill", "replace"]
NO_MAP = GenreMap()


class TagPolicy(BaseModel, frozen=True, extra="forbid"):
    """Which fields of a file may be written, and what its owner wants to keep."""

    policy: Literal["fill", "replace", "append"] = Field(
        "fill",
        description="fill: only files that have no genre; append: add what is missing; replace: all files",
    )
    never_touch: tuple[str, ...] = Field(
        (), description="Genres of your own: a file that has one of them, in any spelling, is left alone"
    )
    respell: bool = Field(
        False,
        description="Write a genre anew if only its spelling differs from the model's or the map's "
        "(replace, append)",
    )
    confidence_field: FieldPolicy = Field(
        "never", description=f"Write the model's confidence into a field of its own, {CONFIDENCE}"
    )
    model_field: FieldPolicy = Field(
        "never", description=f"Write the model's version into a field of its own, {MODEL}"
    )

    @field_validator("never_touch")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            validate_genre_name(name)
        return names


def keep_reason(
    old_genres: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str] | None:
    """Tell, with reason and detail, whether a file stays as it is, whatever a model would tell."""
    guarded = {genre_map.key(name) for name in policy.never_touch}
    found = [name for name in old_genres if genre_map.key(name) in guarded]
    if found:
        return "protected", ", ".join(found)
    if policy.policy == "fill" and any(name.strip() for name in old_genres):
        return "has-genre", ", ".join(old_genres)
    return None


def new_genres(
    old_genres: Sequence[str], predicted: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, ...] | None:
    """Give all genres a file is to have, in order; None if there is nothing to change.

    `predicted` are the model's names, the likeliest first. Spelling alone is no change, unless
    `respell` asks for it; another order is one, since most players show the first genre.
    Blank values are not kept.
    """
    if keep_reason(old_genres, policy, genre_map):
        return None
    wanted = _without_repeats(genre_map.map_genres(predicted), genre_map)
    if not wanted:
        return None
    there = tuple(name for name in old_genres if name.strip())
    match policy.policy:
        case "fill" | "replace":
            same = _keys(_without_repeats(there, genre_map), genre_map) == _keys(wanted, genre_map)
            changed = wanted if policy.respell or not same else there
        case "append":
            changed = _append(there, wanted, policy, genre_map)
    return None if changed == there else changed


def unchanged_reason(
    old_genres: Sequence[str], predicted: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str]:
    """Give reason and detail for a file that `new_genres` does not change."""
    assert new_genres(old_genres, predicted, policy, genre_map) is None, "it would be changed"
    left = keep_reason(old_genres, policy, genre_map)
    if left:
        return left
    if predicted and not genre_map.map_genres(predicted):
        return "mapped-to-nothing", ", ".join(predicted)
    return "has-genre", ", ".join(old_genres)


def custom_tags_to_write(
    confidence: float | None, model_version: str, old_custom_tags: Mapping[str, str], policy: TagPolicy
) -> dict[str, str]:
    """Give the custom fields to write beside the genres, by name: only those that change."""
    told = {
        CONFIDENCE: (policy.confidence_field, None if confidence is None else f"{confidence:.2f}"),
        MODEL: (policy.model_field, model_version),
    }
    custom_tags = {}
    for name, (wish, value) in told.items():
        old = old_custom_tags.get(name, "")
        if value and value != old and (wish == "replace" or (wish == "fill" and not old)):
            custom_tags[name] = value
    return custom_tags


def _append(
    old_genres: Sequence[str], wanted: Sequence[str], policy: TagPolicy, genre_map: GenreMap
) -> tuple[str, ...]:
    there = {genre_map.key(name) for name in old_genres}
    kept = list(old_genres)
    if policy.respell:
        name_of = {genre_map.key(name): name for name in wanted}
        kept = [name_of.get(genre_map.key(name), genre_map.preferred_name(name)) for name in old_genres]
        kept = list(_without_repeats(kept, genre_map))
    return (*kept, *(name for name in wanted if genre_map.key(name) not in there))


def _without_repeats(names: Iterable[str], genre_map: GenreMap) -> tuple[str, ...]:
    """Keep of names that are one genre the first."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(genre_map.key(name), name)
    return tuple(first.values())


def _keys(names: Iterable[str], genre_map: GenreMap) -> list[str]:
    return [genre_map.key(name) for name in names]
