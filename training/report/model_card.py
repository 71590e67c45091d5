"""The model card in Markdown: what to know about a model before using it.

Source: the sections of Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.evaluation.calibration import UNREACHABLE_THRESHOLD
from training.evaluation.test_set_use import earlier_versions
from training.networks.settings import FEATURES, NETWORK, ModelSettings
from training.report.dotted_names import flatten

ABSENT = "–"  # noqa: RUF001  an en dash, for a missing figure
FIGURES = (
    ("accuracy", "Accuracy"),
    ("macro_f1", "Macro F1"),
    ("micro_f1", "Micro F1"),
    ("mean_average_precision", "Mean average precision (mAP)"),
    ("roc_auc", "ROC-AUC, mean over genres"),
    ("top_k", "Genre among the likeliest {k}"),
    ("log_loss", "Log-loss, in nats"),
    ("calibration_error", "Expected calibration error (ECE)"),
    ("chance", "Always the most frequent label (chance)"),
)


def write_model_card(card: Mapping[str, Any]) -> str:
    """Return the card of a model version as Markdown, from the content of its model.json."""
    sections = [
        _summary(card),
        _use(card),
        _data(card),
        _evaluation(card),
        _genres(card),
        _calibration(card),
        _settings(card),
        _caveats(card),
    ]
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _summary(card: Mapping[str, Any]) -> Iterator[str]:
    target = card["training"]["target"]
    doubt = "" if _beats_baseline(card) else ", no better than its baseline"
    yield f"# Model card: run {card['run'].rsplit('/', 1)[-1]}{doubt}"
    yield ""
    yield (
        f"A model of The Spectrogram One: {_describe_members(card)}. From log-mel spectrograms it predicts "
        + ("the genre" if target == "top" else "the genres")
        + f" of a track, out of {len(card['genres'])}."
    )
    yield ""
    yield f"- Trained: {card['trained']}, by code version {_code(card['code'])}"
    if any(member["kind"] == NETWORK for member in card["members"]):
        yield f"- Started from: {_code(card['parent']) if card['parent'] else 'random weights'}"
    epoch = (
        f", best epoch {card['best_epoch']}: the last within one standard error of the lowest validation loss"
        if card["best_epoch"]
        else ""
    )
    yield f"- Run: {_code(card['run'])}{epoch}"


def _beats_baseline(card: Mapping[str, Any]) -> bool:
    baseline = card["baseline"]
    return baseline is None or card["metrics"]["test"]["correct"] > baseline["correct"]


def _describe_members(card: Mapping[str, Any]) -> str:
    training = card["training"]
    model = ModelSettings.model_validate(training["model"])
    kinds = {
        NETWORK: f"a `{model.network}` network on crops of {training['crop_s']:g} s",
        FEATURES: "a kernel machine on six blocks of features"
        + " and the embedding of musicnn" * model.has_musicnn,
    }
    members = [
        kinds[member["kind"]] + (f" (weight {member['weight']:g})" if len(card["members"]) > 1 else "")
        for member in card["members"]
    ]
    return " and ".join(members)


def _use(card: Mapping[str, Any]) -> Iterator[str]:
    others = (
        "is assigned one of them" if card["training"]["target"] == "top" else "may be assigned some of them"
    )
    yield "## Intended use and limits"
    yield ""
    yield (
        "Suggests genres for music files without one. `spectrogram-one tag` shows all changes before it writes "
        "any, and `spectrogram-one undo` reverts them."
    )
    yield ""
    yield f"- It predicts only the genres listed below: music of any other genre {others} nevertheless."
    yield "- A genre means what the labels of the training data mean by it; other catalogues differ."
    yield (
        "- Not intended to assess the quality, origin or value of music or of its authors; "
        "its errors are not spread evenly over genres (see the table)."
    )


def _data(card: Mapping[str, Any]) -> Iterator[str]:
    mel = card["mel"]
    yield "## Training data"
    yield ""
    yield f"- Spectrograms: {_code(card['snapshot'])}"
    yield f"- Hash of the training data (tracks, targets, spectrograms): `{card['data']}`"
    yield "- Tracks: " + ", ".join(f"{count:,} {split}" for split, count in card["tracks"].items())
    yield "- No named artist is in two splits; a network is fitted on the training tracks only."
    if any(member["kind"] == FEATURES for member in card["members"]):
        yield (
            "- The kernel machine is fitted on the validation tracks too, by which it chooses nothing; its scores on "
            "them are those of machines fitted without the artists of each fold."
        )
        if ModelSettings.model_validate(card["training"]["model"]).has_musicnn:
            yield (
                "- musicnn was trained on tags of the Million Song Dataset: where test tracks are among its songs, the "
                "scores on them are too optimistic."
            )
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
        "In brackets: 95 % intervals from resampled artists, as tracks of one artist are correct or wrong "
        "together. Weights, temperature and thresholds were chosen on the validation tracks, so their scores "
        "are too optimistic; the test tracks were used for no choice."
    )
    yield from _comparison(card)
    yield from _test_use(card["test_use"])


def _comparison(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield the baseline's scores, and the table by which the model was chosen."""
    baseline, choice = card["baseline"], card["choice"]
    yield ""
    if baseline is None:
        yield "No baseline: it predicts one genre a track."
    else:
        yield (
            f"Baseline, a {baseline['name']}, on the same test tracks: {baseline['correct']:,} of "
            f"{baseline['tracks']:,} correct, accuracy {baseline['accuracy']:.3f}, macro F1 {baseline['macro_f1']:.3f}."
        )
    if choice is None:
        return
    yield ""
    yield f"Choice of the model: {choice['name']}; {choice['reason']}."
    if choice["scores"]:
        yield (
            f"Cross-validation over {choice['tracks']:,} training and validation tracks, {choice['folds']} folds that "
            "share no artist:"
        )
        yield ""
        yield "| Candidate | Accuracy | Log-loss | Behind the best | Standard error |"
        yield "|---|---:|---:|---:|---:|"
        for each in choice["scores"]:
            name = each["name"] + ("" if each["is_candidate"] else " (baseline)")
            figures = (each[key] for key in ("accuracy", "log_loss", "behind", "standard_error"))
            yield f"| {name} | {' | '.join(map(_number, figures))} |"


def _test_use(use: Mapping[str, Any]) -> Iterator[str]:
    earlier = earlier_versions(use)
    yield ""
    yield (
        f"Test set `{use['test_set']}`: {use['tracks']:,} tracks, scored once for this model, at "
        f"{use['evaluated_at']}. "
        + (
            f"{len(earlier)} earlier version{'s' * (len(earlier) > 1)} in this folder had been scored on some or all "
            "of them: "
            + ", ".join(f"{_code(version)} ({tracks:,} tracks)" for version, tracks in earlier[-10:])
            + (" (the last 10)." if len(earlier) > 10 else ".")
            if earlier
            else "No earlier version in this folder is known to have been scored on any of them."
        )
    )


def _genres(card: Mapping[str, Any]) -> Iterator[str]:
    parents = card["calibration"]["parents"]
    yield "## Genre by genre, on the test tracks"
    yield ""
    yield "| Genre | Tracks | Predicted | Precision | Recall | F1 | Average precision | Threshold |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for each in card["metrics"]["test"]["genres"]:
        numbers = (each.get(key) for key in ("precision", "recall", "f1", "average_precision"))
        name = each["genre"] + (f" (a kind of {parents[each['genre']]})" if each["genre"] in parents else "")
        cells = [_text(name), f"{each['support']:,}", f"{each['predicted']:,}", *map(_number, numbers)]
        yield f"| {' | '.join([*cells, _threshold(each.get('threshold'))])} |"


def _calibration(card: Mapping[str, Any]) -> Iterator[str]:
    calibration = card["calibration"]
    yield "## Calibration and thresholds"
    yield ""
    yield f"- Temperature: {calibration['temperature']:.3f}"
    test = card["metrics"]["test"]
    yield (
        f"- ECE on the test tracks: {test['uncalibrated_error']:.3f} before calibration, "
        f"{test['calibration_error']:.3f} calibrated"
    )
    yield from (f"- {_text(note)}" for note in card["calibration_notes"])
    if calibration["parents"]:
        yield f"- Genres with a parent: {len(calibration['parents'])}. A child implies its parents."


def _settings(card: Mapping[str, Any]) -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield f"Seed {card['training']['seed']} determines weights, crops, dropout and augmentation."
    yield ""
    yield "| Setting | Value |"
    yield "|---|---|"
    for key, value in flatten(card["training"]):
        yield f"| `{key}` | {_text(str(value))} |"


def _caveats(card: Mapping[str, Any]) -> Iterator[str]:
    caveats: Sequence[str] = card["metrics"]["caveats"]
    yield "## Caveats"
    yield ""
    yield from (f"- {_text(caveat)}" for caveat in caveats)
    yield "- The scores hold for music like the test tracks; on other music the model may do worse."
    yield "- Labels are taken as true; where they are wrong, correct predictions count as errors."


def _figure(scores: Mapping[str, Any], key: str) -> str:
    interval = scores.get(f"{key}_interval")
    bounds = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval else ""
    return _number(scores.get(key)) + bounds


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _threshold(value: float | None) -> str:
    return "never" if value is not None and value >= UNREACHABLE_THRESHOLD else _number(value)


def _text(text: str) -> str:
    """Escape a name, so that Markdown sees no column, tag or new line in it."""
    plain = " ".join(text.split())
    for mark in ("\\", "|", "<", "*", "_", "`", "["):
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _code(text: str) -> str:
    return f"`{text.replace('`', ' ')}`"
