"""What vectors must be, from an embedder or a caller: so many, finite, of one dimension.

Each message names what was expected and what came. numpy is imported at first use, so that
`import vectorizer` stays fast.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

from vectorizer.errors import InvalidEmbeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vectorizer.types import FloatMatrix

__all__ = ["as_bits", "as_matrix", "check_count", "normalized"]


def as_matrix(vectors: object, texts: int, dimensions: int) -> FloatMatrix:
    """Return `vectors` as a float32 matrix of shape (texts, dimensions).

    `vectors` is a matrix or a sequence of rows, each an array or a list; it is copied only
    if it has to be. Raises InvalidEmbeddings if there are more or fewer rows, if a row has
    another dimension, or if a value is NaN, infinite or too large for a float32.
    """
    import numpy as np  # noqa: PLC0415 - heavy

    try:
        _check_shape(cast("Sequence[Sequence[float]]", vectors), texts, dimensions)
        # What float32 cannot hold becomes infinite, and is found below.
        with np.errstate(over="ignore"):
            matrix = _from_lists(vectors, dimensions)
            if matrix is None:
                matrix = np.asarray(vectors, dtype=np.float32)
            matrix = matrix.reshape(texts, dimensions)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEmbeddings(
            f"expected {texts} vectors of {dimensions} numbers, got something else: {error}"
        ) from error
    _check_finite(matrix)
    return matrix


def check_count(vectors: int, texts: int) -> None:
    """Raise InvalidEmbeddings unless there are as many vectors as texts."""
    if vectors != texts:
        raise InvalidEmbeddings(f"expected {texts} vectors, one a text, got {vectors}")


def _from_lists(vectors: object, dimensions: int) -> FloatMatrix | None:
    """Return lists of floats as a matrix, None for anything else.

    `struct` reads 1,536 floats of a list in 8 µs, numpy in 17.
    """
    import numpy as np  # noqa: PLC0415 - heavy

    if not isinstance(vectors, list) or not all(type(row) is list for row in vectors):
        return None
    form = struct.Struct(f"{dimensions}f")
    try:
        data = b"".join([form.pack(*row) for row in vectors])
    except (struct.error, OverflowError):
        return None  # numpy says what is wrong
    return np.frombuffer(data, dtype=np.float32)


def _check_shape(rows: Sequence[Sequence[float]], texts: int, dimensions: int) -> None:
    check_count(len(rows), texts)
    for number, row in enumerate(rows):
        if len(row) != dimensions:
            raise InvalidEmbeddings(
                f"expected vectors of {dimensions} dimensions, got {len(row)} in vector {number}"
            )


def _check_finite(matrix: FloatMatrix) -> None:
    import numpy as np  # noqa: PLC0415 - heavy

    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise InvalidEmbeddings(
            f"expected finite numbers, got {matrix[row, column]} in vector {row}, "
            f"component {column}"
        )


def normalized(matrix: FloatMatrix) -> FloatMatrix:
    """Return the rows of a matrix at length 1; raise InvalidEmbeddings for a row of zeros."""
    import numpy as np  # noqa: PLC0415 - heavy

    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    if not lengths.all():
        raise InvalidEmbeddings("a vector of zeros has no direction and cannot be normalized")
    unit: FloatMatrix = (matrix / lengths).astype(np.float32)
    return unit


def as_bits(vectors: Sequence[object], texts: int, bits: int) -> NDArray[np.bool_]:
    """Return vectors of bits (texts of 0 and 1, or 0, 1 and bools) as a bool matrix.

    Raises InvalidEmbeddings for another number of bits, or other values.
    """
    import numpy as np  # noqa: PLC0415 - heavy

    rows = [[int(bit) for bit in row] if isinstance(row, str) else row for row in vectors]
    try:
        _check_shape(cast("Sequence[Sequence[float]]", rows), texts, bits)
        matrix = np.asarray(rows).reshape(texts, bits)
        ones = matrix.astype(bool)
    except (TypeError, ValueError) as error:
        raise InvalidEmbeddings(f"expected {bits} bits, 0 or 1: {error}") from error
    if not (matrix == ones).all():
        raise InvalidEmbeddings(f"expected {bits} bits, got something else than 0 and 1")
    return ones
