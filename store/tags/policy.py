"""The rules that combine the genres of a file with those that a model predicts: nothing is read or written."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from store.tags.genre_map import GenreMap, validate_genre_name
from store.tags.schema import CUSTOM_TAG_NAMES

CONFIDENCE, MODEL = CUSTOM_TAG_NAMES
FieldPolicy = Literal["never", "fill", "replace"]
NO_MAP = GenreMap()


class TagPolicy(BaseModel, frozen=True, extra="forbid"):
    """Which fields of a file may be written, and which genres its owner keeps."""

    policy: Literal["fill", "replace", "append"] = Field(
        "fill",
        description="fill: only files that have no genre; append: add what is missing; replace: all files",
    )
    never_touch: tuple[str, ...] = Field(
        (), description="Genres of your own: a file that has one of them, in any spelling, is left unchanged"
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

    @field_validator("never_touch")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            validate_genre_name(name)
        return names


def keep_reason(
    old_genres: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str] | None:
    """Return reason and detail if a file stays as it is, whatever a model predicts; else None."""
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
    """Return all genres that a file is to have, in order; None if nothing changes.

    `predicted` are the model's names, the most probable first. A difference in spelling alone is no change, unless
    `respell` is set; another order is one, since most players show the first genre.
    Blank values are not kept.
    """
    if keep_reason(old_genres, policy, genre_map):
        return None
    mapped = _without_repeats(genre_map.map_genres(predicted), genre_map)
    if not mapped:
        return None
    present = tuple(name for name in old_genres if name.strip())
    match policy.policy:
        case "fill" | "replace":
            same = _keys(_without_repeats(present, genre_map), genre_map) == _keys(mapped, genre_map)
            changed = mapped if policy.respell or not same else present
        case "append":
            changed = _append(present, mapped, policy, genre_map)
    return None if changed == present else changed


def unchanged_reason(
    old_genres: Sequence[str], predicted: Sequence[str], policy: TagPolicy, genre_map: GenreMap = NO_MAP
) -> tuple[str, str]:
    """Return reason and detail for a file that `new_genres` does not change."""
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


def _append(
    old_genres: Sequence[str], mapped: Sequence[str], policy: TagPolicy, genre_map: GenreMap
) -> tuple[str, ...]:
    present = {genre_map.key(name) for name in old_genres}
    kept = list(old_genres)
    if policy.respell:
        name_of = {genre_map.key(name): name for name in mapped}
        kept = [name_of.get(genre_map.key(name), genre_map.preferred_name(name)) for name in old_genres]
        kept = list(_without_repeats(kept, genre_map))
    return (*kept, *(name for name in mapped if genre_map.key(name) not in present))


def _without_repeats(names: Iterable[str], genre_map: GenreMap) -> tuple[str, ...]:
    """Return the first of all names that mean one genre."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(genre_map.key(name), name)
    return tuple(first.values())


def _keys(names: Iterable[str], genre_map: GenreMap) -> list[str]:
    return [genre_map.key(name) for name in names]
