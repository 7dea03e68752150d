"""How far apart texts are, for individual fairness: weighted counts of tokens, projected to few dimensions. Ours."""

import numpy as np
import numpy.typing as npt

from kd_ray.seeding import integers, stream

DIMENSIONS = 256
"""Of the projection; distances are kept to about 1 / √256 = 6 %."""


def text_features(ids_NL: npt.NDArray[np.integer], lengths_N: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """(N, 256): a text's TF-IDF vector of length 1, times random signs.

    A token's weight is 1 + ln(N / n), n being the texts that have it; the counts are of all tokens of a text. The signs (Achlioptas 2003)
    are drawn from the stream "text distances".
    """
    inside_NL = np.arange(ids_NL.shape[1])[None, :] < lengths_N[:, None]
    rows_T, _ = np.nonzero(inside_NL)
    tokens, places_T = np.unique(ids_NL[inside_NL], return_inverse=True)
    # One entry for each text and token, with its count.
    cells_U, counts_U = np.unique(rows_T * len(tokens) + places_T, return_counts=True)
    rows_U, places_U = np.divmod(cells_U, len(tokens))
    texts_V = np.bincount(places_U, minlength=len(tokens))
    values_U = counts_U * (1 + np.log(len(ids_NL) / texts_V[places_U]))
    norms_N = np.sqrt(np.bincount(rows_U, weights=values_U**2, minlength=len(ids_NL)))
    values_U = values_U / norms_N[rows_U]
    bits = integers(2, len(tokens) * DIMENSIONS, stream(0, "text distances"))
    signs_VD = (2.0 * bits.reshape(len(tokens), DIMENSIONS) - 1).astype(np.float32) / np.sqrt(DIMENSIONS)
    features_ND = np.zeros((len(ids_NL), DIMENSIONS), dtype=np.float32)
    starts = np.searchsorted(rows_U, np.arange(len(ids_NL) + 1))
    for n in range(len(ids_NL)):
        part = slice(starts[n], starts[n + 1])
        features_ND[n] = values_U[part].astype(np.float32) @ signs_VD[places_U[part]]
    return features_ND
