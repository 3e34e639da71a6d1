"""BERT's forward pass in numpy, with the sizes of MiniLM-L6: token ids in, unit vectors out.

Pure: no I/O, and all scratch belongs to the call, so several threads may share one `Bert`.
Nearly all time goes into matrix products (70 of 92 ms for 16 texts of 41 tokens on 2
cores); the rest is written in place because each pass over an intermediate result costs
memory traffic. Batches, not products, are spread over the cores.

In shapes, b is the number of texts in a batch and n that of tokens in its longest text.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from vectorizer.types import FloatMatrix

__all__ = ["LAYERS", "POSITIONS", "WIDTH", "Bert", "gelu"]

WIDTH = 384
LAYERS = 6
HEADS = 12
POSITIONS = 256
"""The model was trained on texts of up to this many tokens, [CLS] and [SEP] included."""

_HEAD_WIDTH = WIDTH // HEADS
_EPSILON = 1e-12

# A batch of 16 texts of 256 tokens would need 50 MB of attention scores; cut to this many
# tokens (padding included) they stay near the cache: 27 texts/s instead of 23.
_BATCH_TOKENS = 1024

# More would only share the memory bandwidth that two or four use up.
_THREADS = min(4, os.cpu_count() or 1)

# 32 rows of the widest layer are 196 kB: with two scratch blocks they fit a core's L2 cache.
_GELU_ROWS = 32

# GELU is x * Phi(x), Phi = (1 + erf(x / sqrt 2)) / 2, and numpy has no erf. But
# Phi(x) = (1 + tanh(x * p(x^2))) / 2 where x * p(x^2) = logit(Phi(x)) / 2, and that p is so
# smooth that 7 terms give GELU to 6.7e-8 everywhere: float32 rounds 1 to 6e-8.
# (Hendrycks and Gimpel's "tanh GELU" is the same form with 2 terms, good to 5e-4 only.)
# The coefficients are ours: math.erfc fitted on 0 <= x <= 6 by least squares, reweighted
# (Lawson's algorithm) until the greatest error of GELU itself is least. Beyond 6 the first
# term keeps x * p(x^2) above 12, where tanh is 1 in float32.
_HALF_LOGIT = tuple(
    coefficient / 2
    for coefficient in (
        3.611231435519296e-09,
        -2.6689275613706504e-07,
        7.938217896268827e-06,
        -0.00011048030941434661,
        -6.626001281140944e-05,
        0.07266856706208893,
        1.5957684322209365,
    )
)


@dataclass(frozen=True, slots=True)
class _Dense:
    """x @ weight + bias, weight of shape (inputs, outputs)."""

    weight: FloatMatrix
    bias: FloatMatrix

    def __call__(self, x: FloatMatrix) -> FloatMatrix:
        result: FloatMatrix = x @ self.weight
        result += self.bias
        return result


@dataclass(frozen=True, slots=True)
class _Norm:
    """Layer normalization of each row, in place."""

    weight: FloatMatrix
    bias: FloatMatrix

    def __call__(self, x: FloatMatrix) -> None:
        x -= x.mean(axis=1, keepdims=True)
        deviation = np.einsum("ij,ij->i", x, x)
        deviation /= WIDTH
        deviation += _EPSILON
        np.sqrt(deviation, out=deviation)
        x /= deviation[:, None]
        x *= self.weight
        x += self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    """One transformer layer; changes x, of shape (b * n, WIDTH), in place."""

    qkv: _Dense
    attended: _Dense
    attended_norm: _Norm
    widened: _Dense
    narrowed: _Dense
    narrowed_norm: _Norm

    def __call__(self, x: FloatMatrix, texts: int, mask: FloatMatrix | None) -> None:
        qkv = self.qkv(x).reshape(texts, -1, 3, HEADS, _HEAD_WIDTH)
        x += self.attended(_attend(qkv, mask).reshape(x.shape))
        self.attended_norm(x)
        wide = self.widened(x)
        gelu(wide)
        x += self.narrowed(wide)
        self.narrowed_norm(x)


@dataclass(frozen=True, slots=True)
class Bert:
    """The weights, and what is done with them."""

    words: FloatMatrix
    positions: FloatMatrix
    norm: _Norm
    layers: tuple[_Layer, ...]

    @classmethod
    def from_tensors(cls, tensor: Callable[[str], FloatMatrix]) -> Bert:
        """Take the weights from `tensor(name)`, named as in BertModel's state dict."""
        # Each text is one segment, so the first token type is part of every position.
        positions = tensor("embeddings.position_embeddings.weight")[:POSITIONS]
        return cls(
            words=tensor("embeddings.word_embeddings.weight"),
            positions=positions + tensor("embeddings.token_type_embeddings.weight")[0],
            norm=_norm(tensor, "embeddings.LayerNorm"),
            layers=tuple(_layer(tensor, f"encoder.layer.{i}") for i in range(LAYERS)),
        )

    def embed(self, texts: Sequence[Sequence[int]], batch_size: int) -> FloatMatrix:
        """Return the unit vector of each text, given as its 1 to POSITIONS token ids.

        The result has shape (len(texts), WIDTH) and the order of `texts`; they are
        computed in batches of at most `batch_size` texts of similar length, several batches
        at once.
        """
        result = np.empty((len(texts), WIDTH), np.float32)

        def compute(batch: Sequence[int]) -> None:
            result[batch] = self._forward(*_pad([texts[i] for i in batch]))

        batches = _batches([len(ids) for ids in texts], batch_size)
        # One thread a batch, not several a product: BLAS threads spin while they wait for each
        # other, which on two busy cores cost nine tenths of the speed.
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(compute, batches))
        return result

    def _forward(self, ids: NDArray[np.intp], present: NDArray[np.bool_]) -> FloatMatrix:
        """Return shape (b, WIDTH) for `ids` and `present` (not padding) of shape (b, n)."""
        texts, tokens = ids.shape
        hidden = (self.words[ids] + self.positions[:tokens]).reshape(-1, WIDTH)
        self.norm(hidden)
        mask = _mask(present)
        for layer in self.layers:
            layer(hidden, texts, mask)
        return _pool(hidden.reshape(texts, tokens, WIDTH), present)


def gelu(x: FloatMatrix) -> None:
    """Replace x, of shape (rows, columns), by GELU(x) to 1.6e-7 of max(1, |x|)."""
    scratch = np.empty((2, _GELU_ROWS, x.shape[1]), np.float32)
    for start in range(0, len(x), _GELU_ROWS):
        block = x[start : start + _GELU_ROWS]
        square, gate = scratch[:, : len(block)]
        np.multiply(block, block, out=square)
        _half_logit(square, out=gate)
        gate *= block
        np.tanh(gate, out=gate)
        gate += 1.0
        block *= gate
        block *= 0.5


def _half_logit(square: FloatMatrix, out: FloatMatrix) -> None:
    np.multiply(square, _HALF_LOGIT[0], out=out)
    for coefficient in _HALF_LOGIT[1:-1]:
        out += coefficient
        out *= square
    out += _HALF_LOGIT[-1]


def _attend(qkv: FloatMatrix, mask: FloatMatrix | None) -> FloatMatrix:
    """Return shape (b, n, HEADS, _HEAD_WIDTH) for qkv (b, n, 3, HEADS, _HEAD_WIDTH)."""
    query, key, value = qkv.transpose(2, 0, 3, 1, 4)
    scores = query @ key.swapaxes(-1, -2)  # (b, HEADS, n, n)
    if mask is not None:
        scores += mask
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    result = np.empty((len(qkv), qkv.shape[1], HEADS, _HEAD_WIDTH), np.float32)
    mixed = result.swapaxes(1, 2)
    np.matmul(scores, value, out=mixed)
    # The softmax's divisor comes last: here it divides 32 columns, before it n of them.
    mixed /= scores.sum(axis=-1, keepdims=True)
    return result


def _mask(present: NDArray[np.bool_]) -> FloatMatrix | None:
    """Return what keeps attention off the padding: (b, 1, 1, n), None if there is none."""
    if present.all():
        return None
    mask: FloatMatrix = np.where(present, np.float32(0), np.float32(-np.inf))
    return mask[:, None, None, :]


def _pool(hidden: FloatMatrix, present: NDArray[np.bool_]) -> FloatMatrix:
    """Return the direction of the mean over the present tokens: (b, WIDTH), length 1."""
    # Normalizing the sum is normalizing the mean.
    pooled: FloatMatrix = (present[:, None, :].astype(np.float32) @ hidden)[:, 0]
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    return pooled


def _pad(texts: Sequence[Sequence[int]]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return ids and presence of the tokens, each of shape (b, n)."""
    lengths = np.array([len(ids) for ids in texts])
    present = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(present.shape, np.intp)
    ids[present] = np.concatenate(texts)
    return ids, present


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Yield indices by rising length, so that a batch holds next to no padding."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        full = len(batch) == batch_size or (len(batch) + 1) * lengths[i] > _BATCH_TOKENS
        if batch and full:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _layer(tensor: Callable[[str], FloatMatrix], name: str) -> _Layer:
    return _Layer(
        qkv=_qkv(tensor, f"{name}.attention.self"),
        attended=_dense(tensor, f"{name}.attention.output.dense"),
        attended_norm=_norm(tensor, f"{name}.attention.output.LayerNorm"),
        widened=_dense(tensor, f"{name}.intermediate.dense"),
        narrowed=_dense(tensor, f"{name}.output.dense"),
        narrowed_norm=_norm(tensor, f"{name}.output.LayerNorm"),
    )


def _qkv(tensor: Callable[[str], FloatMatrix], name: str) -> _Dense:
    # One product for query, key and value; attention's scale goes into the query for good.
    weights = [tensor(f"{name}.{part}.weight") for part in ("query", "key", "value")]
    biases = [tensor(f"{name}.{part}.bias") for part in ("query", "key", "value")]
    scale = np.float32(1 / math.sqrt(_HEAD_WIDTH))
    weights[0] = weights[0] * scale
    biases[0] = biases[0] * scale
    return _Dense(np.concatenate(weights).T, np.concatenate(biases))


def _dense(tensor: Callable[[str], FloatMatrix], name: str) -> _Dense:
    return _Dense(tensor(f"{name}.weight").T, tensor(f"{name}.bias"))


def _norm(tensor: Callable[[str], FloatMatrix], name: str) -> _Norm:
    return _Norm(tensor(f"{name}.weight"), tensor(f"{name}.bias"))
