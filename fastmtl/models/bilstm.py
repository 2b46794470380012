"""The encoder before transformers: word vectors, a bidirectional LSTM, max over time, and a pair's four-part feature.

As in AutoSeM (Guo, Pasunuru and Bansal, NAACL 2019), with learned or GloVe vectors in place of ELMo's. B rows, P of
them pairs, S = B + P sentences, L tokens, D = 2 x `hidden_size` units of both directions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv
import tokenizers
import torch
from pydantic import Field
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastmtl.errors import UserError
from fastmtl.models.encoder import EncoderSpec, ids_of_words, sha256_of
from fastmtl.options import Count, Portion, Rate, options

T = TypeVar("T")

PAD, UNKNOWN = "<pad>", "<unk>"
"""Ids 0 and 1 of a vocabulary that comes from a file of word vectors."""


@options
class BiLSTMSpec:
    """A BiLSTM over word vectors; it stands wherever an `EncoderSpec` does.

    `embeddings` is a text file as GloVe's, `word v1 ... vd` a line: a lower-cased text is read word by word, and words
    that the file lacks share the mean vector. Without it vectors of `embedding_size` (128) are learned for the ids of
    `tokenizer`, any encoder that `EncoderSpec.name` takes. All vectors are trained, unless `fit.freeze_embeddings`.

    `layers` are LSTMs of `hidden_size` units a direction; AutoSeM has 2 of 512, CPUs are better off with half of that.
    `dropout` is of the vectors and between the layers (AutoSeM 0.5, for MRPC 0.25); that of the pooled feature is
    `fit.dropout`. Initial weights follow the run's seed. `max_length` is in tokens, of both texts together.
    """

    name: str = "bilstm"
    max_length: Annotated[Count, Field(ge=4)] = 128
    learning_rate: Portion = 1e-3
    hidden_size: Count = 256
    layers: Count = 2
    embeddings: Annotated[str, Field(min_length=1, description="the path of a file of word vectors")] | None = None
    embedding_size: Count | None = None
    tokenizer: Annotated[str, Field(min_length=1, description="minilm, or what else encoder.name takes")] = "minilm"
    dropout: Rate = 0.25
    finetune_learning_rate: Portion | None = None

    def identity(self) -> list[Any]:
        """What fixes the distribution of initial weights and the pooled feature: content, not place."""
        size = None if self.embeddings else self.embedding_size or 128
        return [self.hidden_size, self.layers, self.dropout, size, self.tokenizer_identity()]

    def tokenizer_identity(self) -> list[Any]:
        """What fixes the token ids of a text; there are no special tokens."""
        if self.embeddings is None:
            return ["words", self._borrow(EncoderSpec.tokenizer_identity)[0], self.max_length]
        return ["words", f"words-{_file_id(self.embeddings)}", self.max_length]

    def build(self) -> BiLSTMEncoder:
        return BiLSTMEncoder(self)

    def make_tokenizer(self) -> WordTokenizer:
        if self.embeddings is None:
            borrowed = self._borrow(EncoderSpec.make_tokenizer)
            return WordTokenizer(borrowed.backend, borrowed.pad_id, borrowed.unknown_id)
        backend = tokenizers.Tokenizer(models.WordLevel(_word_vectors(self.embeddings)[0], unk_token=UNKNOWN))
        # GloVe's own words have their accents; BERT's would lose them.
        backend.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.enable_truncation(self.max_length)
        return WordTokenizer(backend, pad_id=0, unknown_id=1)

    def vectors(self) -> nn.Embedding:
        """A vector an id: the file's, or fresh ones."""
        if self.embeddings is None:
            ids = self._borrow(EncoderSpec.make_tokenizer).backend.get_vocab().values()
            return nn.Embedding(max(ids) + 1, self.embedding_size or 128)
        _, vectors = _word_vectors(self.embeddings)
        if self.embedding_size not in (None, vectors.shape[1]):
            raise UserError(
                f"encoder.embedding_size={self.embedding_size}, but the vectors of {self.embeddings!r} have "
                f"{vectors.shape[1]} values; use null"
            )
        return nn.Embedding.from_pretrained(torch.tensor(vectors), freeze=False)  # a copy: the cache stays as it is

    def _borrow(self, part: Callable[[EncoderSpec], T]) -> T:
        try:
            return part(EncoderSpec(self.tokenizer, max_length=self.max_length))
        except UserError as error:
            raise UserError(f"encoder.tokenizer={self.tokenizer!r}: {error}") from error


class WordTokenizer:
    """A tokenizer without special tokens: the encoder reads each text of a pair by itself."""

    def __init__(self, backend: Any, pad_id: int, unknown_id: int) -> None:
        self.backend, self.pad_id, self.unknown_id = backend, pad_id, unknown_id
        # Without a template both texts of a pair would have type 0.
        backend.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])

    def __call__(self, first: list[str], second: list[str] | None) -> tuple[list[list[int]], list[int]]:
        """See `fastmtl.data.pool.Tokenize`; a text without any token is one unknown token."""
        rows, starts = [], []
        for row in self.backend.encode_batch_fast(first if second is None else list(zip(first, second))):
            ids, start = row.ids, len(row) - sum(row.type_ids)
            if start == 0:
                ids, start = [self.unknown_id, *ids], 1
            if second is not None and start == len(ids):
                ids = [*ids, self.unknown_id]
            rows.append(ids)
            starts.append(start)
        return rows, starts

    def words(self, rows: list[list[str]]) -> tuple[list[list[int]], list[list[int]]]:
        return ids_of_words(self.backend, rows, self.unknown_id)


class BiLSTMEncoder(nn.Module):
    """A state a token, and one feature a row: [u; v; u * v; |u - v|] (B, 4 D) of a pair's max-pooled texts u and v.

    A single text has no v, and its feature is [u; 0; 0; 0], where AutoSeM has a narrower projection: all heads share
    one width. The discriminator can so tell pairs from single texts at once, as by a transformer's separator.
    """

    def __init__(self, spec: BiLSTMSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = spec.vectors()
        sizes = [self.embeddings.embedding_dim, *[2 * spec.hidden_size] * (spec.layers - 1)]
        self.layers = nn.ModuleList(nn.LSTM(size, spec.hidden_size, bidirectional=True) for size in sizes)
        self.dropout = nn.Dropout(spec.dropout)
        self.hidden_size = 8 * spec.hidden_size
        self.state_size = 2 * spec.hidden_size

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Features (B, 4 D) of `input_ids`, `attention_mask` and `token_type_ids` (B, L); no text may be empty."""
        ids_BL, real_BL = batch["input_ids"], batch["attention_mask"].bool()
        second_B = (batch["token_type_ids"].bool() & real_BL).sum(1)
        first_B = real_BL.sum(1) - second_B
        pairs_P = second_B.nonzero()[:, 0]
        places_PL = first_B[pairs_P, None] + torch.arange(ids_BL.shape[1], device=ids_BL.device)
        seconds_PL = ids_BL[pairs_P].gather(1, places_PL.clamp(max=ids_BL.shape[1] - 1))
        h_LSD = self._words(torch.cat([ids_BL, seconds_PL]), torch.cat([first_B, second_B[pairs_P]]))
        pooled_SD = h_LSD.amax(0)
        u_BD = pooled_SD[: len(ids_BL)]
        v_BD = torch.zeros_like(u_BD).index_copy(0, pairs_P, pooled_SD[len(ids_BL) :])
        differ_BD = (u_BD - v_BD).abs() * (second_B > 0).unsqueeze(1)
        return torch.cat([u_BD, v_BD, u_BD * v_BD, differ_BD], 1)

    def read(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features (B, 4 D) and states (B, L, D), zeros at padding, of single texts from one pass."""
        ids_BL, real_BL = batch["input_ids"], batch["attention_mask"].bool()
        h_BLD = self._words(ids_BL, real_BL.sum(1), ids_BL.shape[1]).transpose(0, 1)
        u_BD = h_BLD.amax(1)
        return functional.pad(u_BD, (0, 3 * u_BD.shape[1])), h_BLD.masked_fill(~real_BL.unsqueeze(2), 0.0)

    def _words(self, ids_SL: Tensor, lengths_S: Tensor, longest: int | None = None) -> Tensor:
        """States (L, S, D) of the first `lengths_S` tokens of each row, each read by itself; -inf at padding.

        On CPUs it is float32 also under autocast: where all lengths are equal PyTorch hands the batch to oneDNN, which
        fails in half precision on processors without it, and a feature's precision would depend on its neighbours.
        """
        # The lengths go to the host, where cuDNN wants the sizes of its packed batches.
        ids = pack_padded_sequence(ids_SL, lengths_S.cpu(), batch_first=True, enforce_sorted=False)
        x = ids._replace(data=self.embeddings(ids.data))
        with torch.autocast("cpu", enabled=False):
            for lstm in self.layers:
                x, _ = lstm(x._replace(data=self.dropout(x.data)))
        return pad_packed_sequence(x, padding_value=-math.inf, total_length=longest)[0]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def layer_stack(self) -> list[nn.Module]:
        return list(self.layers)

    def embedding_module(self) -> nn.Module:
        return self.embeddings

    def forward_flops(self, lengths: np.ndarray, layers: int | None = None) -> float:
        """See `Encoder`; the four gates of a direction take 8 H (I + H) a token, I being the layer's inputs."""
        hidden = self.spec.hidden_size
        inputs = [self.embeddings.embedding_dim, *[2 * hidden] * (self.num_layers - 1)][:layers]
        return float(np.sum(lengths, dtype=np.float64)) * sum(2 * 8 * hidden * (size + hidden) for size in inputs)


_FIX = "give the path of a GloVe text file, or null for learned vectors"


@lru_cache(maxsize=32)
def _file_id(path: str) -> str:
    return sha256_of(_existing(path))


def _existing(path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"encoder.embeddings={path!r} is not a file; {_FIX}")
    return file


@lru_cache(maxsize=1)
def _word_vectors(path: str) -> tuple[dict[str, int], np.ndarray]:
    """Ids of words, and vectors (V, d) float32: zeros for padding, the mean for unknown words, then the file's lines.

    Of words that are alike in lower case, the one in lower case counts, else the first.
    """
    file = _existing(path)
    with open(file, "rb") as lines:
        columns = next((line.rstrip(b"\r\n").count(b" ") + 1 for line in lines if line.strip()), 0)
    if not columns:
        raise UserError(f"encoder.embeddings={path!r} is empty; {_FIX}")
    names = ["word", *map(str, range(columns - 1))]
    types = {"word": pa.binary(), **dict.fromkeys(names[1:], pa.float32())}
    parse = pa.csv.ParseOptions(delimiter=" ", quote_char=False)
    convert = pa.csv.ConvertOptions(column_types=types, null_values=[], check_utf8=False)
    try:
        table = pa.csv.read_csv(file, pa.csv.ReadOptions(column_names=names), parse, convert)
    except pa.ArrowInvalid as error:
        raise UserError(f"encoder.embeddings={path!r}: {_fault(file, columns) or str(error).splitlines()[0]}") from None
    vectors = np.zeros((2 + len(table), columns - 1), np.float32)
    for i, column in enumerate(table.columns[1:]):
        vectors[2:, i] = column.to_numpy()
    if columns == 1 or not np.isfinite(vectors[2:]).all():
        raise UserError(f"encoder.embeddings={path!r}: {_fault(file, columns)}")
    vectors[1] = vectors[2:].mean(0, dtype=np.float64)
    words = [word.decode(errors="replace") for word in table["word"].to_pylist()]
    ids = {PAD: 0, UNKNOWN: 1}
    for spell in (str, str.lower):
        for i, word in enumerate(map(spell, words), 2):
            ids.setdefault(word, i)
    return ids, vectors


def _fault(file: Path, columns: int) -> str | None:
    """The first line that is not a word and `columns` - 1 numbers, what it is instead, and what to do."""
    wanted = "write `word v1 ... vd` with single spaces, as GloVe's files do"
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, 1):
            _, *values = line.rstrip(b"\r\n").split(b" ")
            if not line.strip():
                continue
            if not values:
                return f"line {number} has no values; {wanted}"
            if len(values) != columns - 1:
                return f"line {number} has {len(values)} values, not {columns - 1} as the first; mend or remove it"
            for value in values:
                with suppress(ValueError):
                    if math.isfinite(float(value)):
                        continue
                return f"line {number} has {value.decode(errors='replace')[:20]!r} for a number; {wanted}"
    return None
