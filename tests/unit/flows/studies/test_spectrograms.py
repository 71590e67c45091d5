"""What the study of spectrograms calls a difference."""

from flows.studies.spectrograms import describe_differences
from training.studies.paired_test import PairedTest


def with_p(p):
    return PairedTest(0.072, 0.0, 0.2, p, 100, 20)


def test_of_several_variants_only_what_remains_after_the_correction_differs():
    assert list(describe_differences({"a": with_p(0.03), "b": with_p(0.02)})) == [
        "Different from the product's after Holm's correction for 2 comparisons: b (+7.2 points), a (+7.2 points)."
    ]
    assert list(describe_differences({"a": with_p(0.03), "b": with_p(0.04)})) == [
        "None of the 2 variants differs from the product's after Holm's correction; the smallest p, uncorrected, "
        "is that of a (+7.2 points): p = 0.030."
    ]
    assert list(describe_differences({})) == []
