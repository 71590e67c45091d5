"""The model card: what a person should know of a model before using it, in Markdown.

Source: the sections of Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.evaluation.calibration import UNREACHABLE_THRESHOLD
from training.evaluation.test_set_use import earlier_versions
from training.report.dotted_names import flatten

ABSENT = "–"  # noqa: RUF001  an en dash, for a figure that there is not
FIGURES = (
    ("accuracy", "Accuracy"),
    ("macro_f1", "Macro F1"),
    ("micro_f1", "Micro F1"),
    ("mean_average_precision", "Mean average precision (mAP)"),
    ("roc_auc", "ROC-AUC, mean over genres"),
    ("top_k", "Genre among the likeliest {k}"),
    ("log_loss", "Log-loss, in nats"),
    ("calibration_error", "Expected calibration error (ECE)"),
    ("chance", "Always the commonest answer (chance)"),
)


def write_model_card(card: Mapping[str, Any]) -> str:
    """Lay out the card of a model version, from what model.json holds of it."""
    sections = [
        _what_it_is(card),
        _use(card),
        _data(card),
        _evaluation(card),
        _genres(card),
        _decision(card),
        _how_it_was_made(card),
        _caveats(card),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _what_it_is(card: Mapping[str, Any]) -> Iterator[str]:
    target = card["training"]["target"]
    yield f"# Model card: {card.get('version') or card['run'].rsplit('/', 1)[-1]}"
    yield ""
    yield (
        f"A `{card['training']['model']['name']}` network of The Spectrogram One. It listens to log-mel "
        f"spectrograms of {card['training']['crop_s']:g} s crops and tells "
        + ("which one of" if target == "top" else "which of")
        + f" {len(card['genres'])} genres a track has."
    )
    yield ""
    yield f"- Trained: {card['trained']}, by code version {_code(card['code'])}"
    yield f"- Started from: {_code(card['parent']) if card.get('parent') else 'random weights'}"
    yield f"- Run: {_code(card['run'])}, best epoch {card['best_epoch']} by validation loss"


def _use(card: Mapping[str, Any]) -> Iterator[str]:
    rest = "is given one of them" if card["training"]["target"] == "top" else "may be given some of them"
    yield "## Intended use and limits"
    yield ""
    yield (
        "Made to suggest genres for music files whose genre is unknown, with a person able to undo what was "
        "written (`spectrogram-one tag` shows changes before it writes any)."
    )
    yield ""
    yield f"- It knows the genres listed below and no others: music of any other kind {rest} all the same."
    yield "- A genre is what the labels of its training data say it is; other catalogues draw other lines."
    yield (
        "- Not made to judge quality, origin or worth of music, nor of those who made it; "
        "its errors are not spread evenly over genres (see the table)."
    )


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    counts = card.get("tracks") or {
        split: card["metrics"][split]["tracks"]
        for split in ("validation", "test")
        if split in card["metrics"]
    }
    mel = card["mel"]
    yield "## Training data"
    yield ""
    yield f"- Spectrograms: {_code(card['snapshot'])}"
    if card.get("data"):
        yield f"- Data learned from (tracks, targets, spectrograms): `{card['data']}`"
    yield "- Tracks: " + ", ".join(f"{count:,} {split}" for split, count in counts.items())
    yield "- Splits share no artist that the catalogue names; only the training tracks set weights."
    yield (
        f"- Audio: {mel['sample_rate_hz']:,} Hz, {mel['bands']} mel bands, window {mel['window']:,}, "
        f"hop {mel['hop']:,} samples"
    )


def _evaluation(card: Mapping[str, Any]) -> Iterator[str]:
    splits = [split for split in ("test", "validation") if split in card["metrics"]]
    yield "## Scores"
    yield ""
    yield f"| | {' | '.join(splits)} |"
    yield "|---|" + "---:|" * len(splits)
    for key, label in FIGURES:
        cells = [_figure(card["metrics"][split], key) for split in splits]
        if set(cells) != {ABSENT}:
            yield f"| {label.format(k=card['metrics']['test'].get('k'))} | {' | '.join(cells)} |"
    yield f"| Tracks | {' | '.join(format(card['metrics'][split]['tracks'], ',') for split in splits)} |"
    yield ""
    yield (
        "In brackets: 95 % intervals; artists are drawn anew, not tracks, as songs of one artist are right or "
        "wrong together. Weights, temperature and thresholds were chosen on the validation tracks, so "
        "their scores are rosier than the truth; the test tracks chose nothing."
    )
    yield from _test_use(card.get("test_use"))


def _test_use(use: Mapping[str, Any] | None) -> Iterator[str]:
    if use is None:
        return
    before = earlier_versions(use)
    yield ""
    yield (
        f"Test set `{use['test_set']}`: {use['tracks']:,} tracks, listened to once for this model, at "
        f"{use['evaluated_at']}. "
        + (
            f"{len(before)} earlier version{'s' * (len(before) > 1)} of this root had been scored on some or all "
            "of them: "
            + ", ".join(f"{_code(version)} ({tracks:,} tracks)" for version, tracks in before[-10:])
            + (" (the last 10)." if len(before) > 10 else ".")
            if before
            else "No earlier version of this root is known to have been scored on any of them."
        )
    )


def _genres(card: Mapping[str, Any]) -> Iterator[str]:
    parents = card.get("calibration", {}).get("parents", {})
    yield "## Genre by genre, on the test tracks"
    yield ""
    yield "| Genre | Tracks | Told | Precision | Recall | F1 | Average precision | Threshold |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for each in card["metrics"]["test"]["genres"]:
        numbers = (each.get(key) for key in ("precision", "recall", "f1", "average_precision"))
        name = each["genre"] + (f" (a kind of {parents[each['genre']]})" if each["genre"] in parents else "")
        cells = [_text(name), f"{each['support']:,}", f"{each['predicted']:,}", *map(_number, numbers)]
        yield f"| {' | '.join([*cells, _threshold(each.get('threshold'))])} |"


def _decision(card: Mapping[str, Any]) -> Iterator[str]:
    calibration = card.get("calibration", {})
    yield "## Calibration and thresholds"
    yield ""
    yield f"- Temperature: {calibration.get('temperature', 1.0):.3f}"
    test = card["metrics"]["test"]
    if "uncalibrated_error" in test:
        yield (
            f"- ECE on the test tracks: {test['uncalibrated_error']:.3f} by the network alone, "
            f"{test['calibration_error']:.3f} as calibrated"
        )
    yield from (f"- {_text(note)}" for note in card.get("calibration_notes", ()))
    if calibration.get("parents"):
        yield f"- Genres that are that have a parent: {len(calibration['parents'])}. A child implies its parents."


def _how_it_was_made(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield f"Seed {card['training']['seed']} fixes weights, crops, dropout and augmentation."
    yield ""
    yield "| Setting | Value |"
    yield "|---|---|"
    for key, value in flatten(card["training"]):
        yield f"| `{key}` | {_text(str(value))} |"


def _caveats(card: Mapping[str, Any]) -> Iterator[str]:
    caveats: Sequence[str] = card["metrics"].get("caveats", ())
    yield "## Caveats"
    yield ""
    yield from (f"- {_text(caveat)}" for caveat in caveats)
    yield "- The scores hold for music like that of the test tracks; other music may fare worse."
    yield "- Labels are taken as true; where they are wrong, right answers count as errors."


def _figure(scores: Mapping[str, Any], key: str) -> str:
    interval = scores.get(f"{key}_interval")
    bounds = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else ""
    return _number(scores.get(key)) + bounds


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _threshold(value: float | None) -> str:
    return "never" if value is not None and value >= UNREACHABLE_THRESHOLD else _number(value)


def _text(text: str) -> str:
    """Keep a name from being read as Markdown: as a column, a tag or a line of its own."""
    plain = " ".join(text.split())
    for mark in ("\\", "|", "<", "*", "_", "`", "["):
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _code(text: str) -> str:
    return f"`{text.replace('`', ' ')}`"
