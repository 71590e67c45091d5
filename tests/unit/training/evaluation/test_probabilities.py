import numpy as np
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.probabilities import PROBABILITY_EPSILON, expit, log_softmax, logit, softmax

LOGITS = st.lists(st.floats(-700, 700), min_size=1, max_size=9).map(np.array)
# A few roundings of values that have been added to numbers of up to 700.
ROUNDING = 4 * 700 * np.finfo(np.float64).eps


@given(logits=LOGITS)
def test_expit_and_softmax_are_those_of_scipy(logits):
    np.testing.assert_allclose(expit(logits), scipy.special.expit(logits), rtol=ROUNDING)
    for ours, theirs in ((softmax, scipy.special.softmax), (log_softmax, scipy.special.log_softmax)):
        np.testing.assert_allclose(ours(logits[None])[0], theirs(logits), rtol=ROUNDING, atol=ROUNDING)


@given(probability=st.floats(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
def test_logit_is_the_inverse_of_expit(probability):
    np.testing.assert_allclose(expit(logit(np.array([probability]))), probability, rtol=ROUNDING)
