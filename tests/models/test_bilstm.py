"""The BiLSTM: its feature from its own LSTM's parts, files of word vectors, what it costs, and the whole chain."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fastmtl.cli.compose import compose
from fastmtl.data.batching.planned import Proportional
from fastmtl.data.collate import collate
from fastmtl.data.sample import vocabulary
from fastmtl.errors import UserError
from fastmtl.models import bilstm
from fastmtl.models.bilstm import BiLSTMEncoder, BiLSTMSpec
from fastmtl.models.inference import Inference, forward_rows
from fastmtl.models.multitask import MultiTaskModel, ProxyModel, load_weights
from fastmtl.models.packed import can_pack
from fastmtl.tasks import TaskSpec
from fastmtl.training.config import FitConfig, Hardware
from fastmtl.training.finetuned import load_finetuned
from fastmtl.training.fit import FitJob, run_fit
from fastmtl.training.modules import encoder_layers, freeze, training_flops
from tests.helpers.cells import ONE_EPOCH
from tests.helpers.toy import row_sets

SPEC = BiLSTMSpec(max_length=32, hidden_size=5, layers=2, embedding_size=7, tokenizer="tiny", dropout=0.0)
CPU = Inference(pad_id=0, device=torch.device("cpu"))
GLOVE = "the 1 2 3\ncafé 4 5 6\nThe 7 8 9\nObama -1 0 1\n. 0 0.5 -2e-1\n"


@pytest.fixture
def glove(tmp_path: Path) -> Callable[..., str]:
    """`glove(text, name)`: the path of a file of word vectors."""

    def write(text: str = GLOVE, name: str = "glove.txt") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="module")
def encoder() -> BiLSTMEncoder:
    torch.manual_seed(0)
    return SPEC.build().eval()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_pool: Any, toy_source: Any, tiny_tasks: Any) -> Any:
    """12 rows a task of very different lengths; rows 3 and 4 of the pairs have a text that no token is left of."""
    rng = np.random.default_rng(0)
    words = "the cook bought some apples and a waiter washed bowls".split()

    def text(longest: int) -> str:
        return " ".join(rng.choice(words, size=rng.integers(1, longest)))

    first, second = [text(6) for _ in range(12)], [text(12) for _ in range(12)]
    first[3] = second[4] = "\x01"
    rows = {
        "pairs": {"a": first, "b": second, "label": ["no", "yes"] * 6},
        "single": {"a": ["\x01", *(text(25) for _ in range(11))], "label": ["red", "green", "blue"] * 4},
        "score": {"a": [text(9) for _ in range(12)], "label": [str(i / 4) for i in range(12)]},
    }
    source = toy_source(tiny_tasks, {name: {"train": columns} for name, columns in rows.items()}, batch_rows=5)
    return make_pool(tmp_path_factory.mktemp("bilstm_pool"), source, SPEC.make_tokenizer())


def rows(*texts: tuple[list[int], list[int]], width: int = 0) -> dict[str, torch.Tensor]:
    """A batch of (ids of the first text, ids of the second), padded with 9 to `width` or the longest."""
    width = max(width, *(len(a) + len(b) for a, b in texts))
    pads = [width - len(a) - len(b) for a, b in texts]
    return {
        "input_ids": torch.tensor([[*a, *b, *[9] * n] for (a, b), n in zip(texts, pads)]),
        "attention_mask": torch.tensor([[1] * (len(a) + len(b)) + [0] * n for (a, b), n in zip(texts, pads)]),
        "token_type_ids": torch.tensor([[0] * len(a) + [1] * len(b) + [0] * n for (a, b), n in zip(texts, pads)]),
    }


def alone(encoder: BiLSTMEncoder, ids: list[int]) -> torch.Tensor:
    """(D,) max over time of one text, read by plain calls of the LSTMs: no packing, no batch."""
    x = encoder.embeddings(torch.tensor(ids))
    for lstm in encoder.layers:
        x, _ = lstm(x)
    return x.max(0).values


PAIR, SINGLE = ([11, 12, 13], [14, 15, 16, 17, 18, 19]), ([20, 21, 22, 23], [])


# --- features --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_feature_of_a_pair_is_u_v_their_product_and_their_distance(encoder: BiLSTMEncoder) -> None:
    u, v = (alone(encoder, ids) for ids in PAIR)
    expected = torch.cat([u, v, u * v, (u - v).abs()])
    assert encoder.hidden_size == len(expected) == 4 * 2 * 5
    torch.testing.assert_close(encoder(rows(PAIR))[0], expected)
    # The texts are two sequences: neither is read on from the other, in either direction.
    swapped = encoder(rows((PAIR[1], PAIR[0])))[0]
    torch.testing.assert_close(swapped, torch.cat([v, u, u * v, (u - v).abs()]))


@torch.no_grad()
def test_a_single_text_has_its_own_part_and_zeros(encoder: BiLSTMEncoder) -> None:
    feature = encoder(rows(SINGLE))[0]
    torch.testing.assert_close(feature[:10], alone(encoder, SINGLE[0]))
    assert not feature[10:].any()


@torch.no_grad()
def test_neither_padding_nor_neighbours_change_a_feature(encoder: BiLSTMEncoder) -> None:
    texts = [PAIR, SINGLE, ([30], [31]), ([40] * 20, [41] * 9), ([50, 51], [])]
    each = torch.cat([encoder(rows(text)) for text in texts])
    assert each.isfinite().all()
    torch.testing.assert_close(encoder(rows(*texts, width=40)), each)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(encoder(rows(*(texts[i] for i in order))), each[order])


@torch.no_grad()
def test_states_are_those_of_texts_read_alone_and_finite_at_padding(encoder: BiLSTMEncoder) -> None:
    texts = [SINGLE, ([30], []), ([40] * 9, [])]
    batch = rows(*texts, width=12)
    pooled, states = encoder.read(batch)
    assert states.shape == (3, 12, encoder.state_size)
    assert not states[~batch["attention_mask"].bool()].any()
    torch.testing.assert_close(pooled, encoder(batch))
    for states_LD, (ids, _) in zip(states, texts):
        torch.testing.assert_close(states_LD[: len(ids)], encoder.read(rows((ids, [])))[1][0])
        torch.testing.assert_close(states_LD[: len(ids)].amax(0), alone(encoder, ids))


def test_padding_gets_no_gradient_and_every_weight_some(encoder: BiLSTMEncoder) -> None:
    torch.manual_seed(1)
    encoder(rows(PAIR, SINGLE)).square().sum().backward()
    read = {*PAIR[0], *PAIR[1], *SINGLE[0]}
    assert set(encoder.embeddings.weight.grad.abs().sum(1).nonzero()[:, 0].tolist()) == read
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    encoder.zero_grad()


def test_dropout_is_drawn_in_training_alone() -> None:
    encoder = replace(SPEC, dropout=0.5).build()
    with torch.no_grad():
        assert not torch.equal(encoder(rows(PAIR)), encoder(rows(PAIR)))
        encoder.eval()
        assert torch.equal(encoder(rows(PAIR)), encoder(rows(PAIR)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_on_a_cpu_autocast_changes_nothing(encoder: BiLSTMEncoder, dtype: torch.dtype) -> None:
    for batch in (rows(PAIR, SINGLE), rows(SINGLE, SINGLE)):  # lengths that differ, and equal ones: two kernels
        with torch.autocast("cpu", dtype=dtype):
            half = encoder(batch)
        assert torch.equal(half, encoder(batch))


def test_many_rows_at_once_give_what_each_gives_alone(pool: Any, tiny_tasks: Any) -> None:
    torch.manual_seed(0)
    model = ProxyModel(SPEC, tiny_tasks).eval()  # type: ignore[arg-type]
    assert not can_pack(model.encoder)
    for name in pool.names:  # with the rows of which no token is left
        source, places = pool.split(name, "train"), np.array([7, 0, 11, 3, 4, 2, 9])
        got = forward_rows(model.encoder, model.discriminator, source, places, CPU, "test")
        with torch.inference_mode():
            each = torch.cat([model.task_logits(collate(source, np.array([place]), 0)) for place in places])
        np.testing.assert_allclose(got, each.numpy(), atol=1e-6)
    with pytest.raises(UserError, match="int8 is for BERT"):
        forward_rows(model.encoder, model.discriminator, source, places, replace(CPU, precision="int8"), "test")


def test_saved_weights_load_into_the_same_features(tmp_path: Path, pool: Any, tiny_tasks: Any) -> None:
    batch = collate(pool.split("pairs", "train"), np.arange(12), 0)
    torch.manual_seed(0)
    saved = ProxyModel(SPEC, tiny_tasks).eval()  # type: ignore[arg-type]
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    loaded = ProxyModel(SPEC, tiny_tasks).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        assert not torch.equal(loaded.task_logits(batch), saved.task_logits(batch))
        load_weights(loaded, tmp_path / "w.safetensors")
        assert torch.equal(loaded.task_logits(batch), saved.task_logits(batch))


def test_it_learns_in_seconds_whether_two_texts_share_their_first_word() -> None:
    rng = np.random.default_rng(0)

    def batch(n: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        words = rng.integers(10, 16, (n, 2))
        words[::2, 1] = words[::2, 0]
        tails = rng.integers(16, 30, (n, 2, 3)).tolist()
        texts = [([int(a), *tail[0]], [int(b), *tail[1]]) for (a, b), tail in zip(words, tails)]
        return rows(*texts), torch.tensor(words[:, 0] == words[:, 1]).long()

    torch.manual_seed(0)
    model = MultiTaskModel(replace(SPEC, hidden_size=16), (TaskSpec("t", "classification", ("a", "b"), ("n", "y")),))  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(80):
        texts, labels = batch(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(texts, "t"), labels).backward()
        optimizer.step()
    texts, labels = batch(500)
    assert float((model.eval()(texts, "t").argmax(1) == labels).float().mean()) > 0.95


# --- layers, freezing, cost ------------------------------------------------------------------------------------------


def test_the_cost_of_a_forward_pass_by_hand(encoder: BiLSTMEncoder) -> None:
    # 10 tokens, two directions, 4 gates of 5 units, at 2 operations a multiply-add; inputs and state of a layer:
    first, second = (10 * 2 * 4 * 5 * (inputs + 5) * 2 for inputs in (7, 2 * 5))
    assert encoder.forward_flops(np.array([10])) == first + second == 21_600
    assert encoder.forward_flops(np.array([4, 6]), layers=1) == first
    assert encoder.forward_flops(np.array([4, 6]), layers=0) == encoder.forward_flops(np.array([], np.int64)) == 0
    model = MultiTaskModel(SPEC, ())  # type: ignore[arg-type]
    lengths = np.array([10])
    assert training_flops(model, FitConfig(), lengths) == 3 * (first + second)
    assert training_flops(model, FitConfig(freeze_layers=1), lengths) == first + 3 * second


def test_layers_are_frozen_from_below_and_not_more_than_there_are() -> None:
    model = MultiTaskModel(SPEC, ())  # type: ignore[arg-type]
    assert model.encoder.num_layers == len(encoder_layers(model)) == 2
    freeze(model, FitConfig(freeze_layers=1))
    still = {name.rsplit(".", 1)[0] for name, p in model.named_parameters() if p.requires_grad}
    assert still == {"encoder.layers.1"}
    only = MultiTaskModel(SPEC, ())  # type: ignore[arg-type]
    freeze(only, FitConfig(freeze_embeddings=True))
    assert [name for name, p in only.named_parameters() if not p.requires_grad] == ["encoder.embeddings.weight"]
    with pytest.raises(UserError, match=r"fit\.freeze_layers=3, but encoder 'bilstm' has 2; use fewer"):
        freeze(model, FitConfig(freeze_layers=3))


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_borrowed_vocabulary_comes_without_special_tokens(tiny: Any) -> None:
    own, borrowed = SPEC.make_tokenizer(), tiny.make_tokenizer()
    words = borrowed.inner.get_vocab()
    the, cook, a = words["the"], words["cook"], words["a"]
    assert own(["the cook", "the"], ["a", "a cook"]) == ([[the, cook, a], [the, a, cook]], [2, 1])
    assert own(["the cook"], None) == ([[the, cook]], [2])
    assert own(["the cook " * 20], ["a"]) == ([[*[the, cook] * 15, the, a]], [31])  # the longer text is cut
    assert SPEC.tokenizer_identity() != tiny.tokenizer_identity()
    assert SPEC.build().embeddings.num_embeddings == len(words)


def test_a_text_without_tokens_is_one_unknown_token(glove: Callable[..., str]) -> None:
    for spec, unknown in ((SPEC, SPEC._borrow(lambda tiny: tiny.make_tokenizer().inner.unk_token_id)),
                          (replace(SPEC, embeddings=glove(), embedding_size=None), 1)):  # fmt: skip
        read = spec.make_tokenizer()
        (word,) = read(["the"], None)[0][0]
        assert read(["", "the", "the"], ["the", "", "the"]) == (
            [[unknown, word], [word, unknown], [word, word]], [1, 1, 1]
        )  # fmt: skip
        assert read([""], None) == ([[unknown]], [1])
        assert read(["\x01"], [" "]) == ([[unknown, unknown]], [1])


def test_a_file_of_vectors_gives_its_values_to_lower_cased_words(glove: Callable[..., str]) -> None:
    spec = BiLSTMSpec(max_length=8, hidden_size=3, embeddings=glove())
    read, vectors = spec.make_tokenizer(), spec.build().embeddings
    (ids,), starts = read(["THE café. Obama xylophone"], None)
    assert starts == [5]
    np.testing.assert_allclose(
        vectors(torch.tensor(ids)).detach(),
        [[1, 2, 3], [4, 5, 6], [0, 0.5, -0.2], [-1, 0, 1], [11 / 5, 15.5 / 5, 18.8 / 5]],  # unknown: the mean
        rtol=1e-6,
    )
    assert read(["don't"], None)[0] == [[1, 1, 1]]  # split as BERT does
    assert read.pad_id == 0
    assert vectors.weight.requires_grad
    assert not vectors.weight[0].any()


def test_training_a_models_vectors_leaves_the_next_models_as_in_the_file(glove: Callable[..., str]) -> None:
    spec = BiLSTMSpec(hidden_size=3, embeddings=glove())
    with torch.no_grad():
        spec.build().embeddings.weight.fill_(5)
    assert spec.build().embeddings.weight[2].tolist() == [1, 2, 3]


def test_spaces_in_the_wild(glove: Callable[..., str]) -> None:
    spec = BiLSTMSpec(hidden_size=3, embeddings=glove("\" 1 2\r\n\r\n' 3 4\r\nthe\xa0x 5 6\r\n\n", "quotes.txt"))
    assert spec.make_tokenizer()(["\"'"], None)[0] == [[2, 3]]
    assert spec.vectors().weight.shape == (5, 2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ["is empty", "GloVe"]),
        ("\n\n", ["is empty"]),
        ("the 1 2\na 1\n", ["line 2 has 1 values, not 2"]),
        ("the 1 2\n\na 1 2 3\n", ["line 3 has 3 values, not 2"]),
        ("400000 100\nthe 1 2\n", ["line 2 has 2 values, not 1"]),
        ("the 1 2\na 1 x\n", ["line 2 has 'x' for a number"]),
        ("the 1 2 \n", ["line 1 has '' for a number", "single spaces"]),
        ("the 1 2\na nan 2\n", ["line 2 has 'nan' for a number"]),
        ("the 1 2\na 1 inf\n", ["line 2 has 'inf' for a number"]),
        ("the\n", ["line 1 has no values"]),
        ("the\t1\t2\n", ["line 1 has no values", "single spaces"]),
    ],
)
def test_a_bad_file_is_refused_in_one_line_with_the_lines_number(
    glove: Callable[..., str], text: str, named: list[str]
) -> None:
    bilstm._word_vectors.cache_clear()
    path = glove(text)
    spec = BiLSTMSpec(embeddings=path)
    for part in (spec.build, spec.make_tokenizer):
        with pytest.raises(UserError) as error:
            part()
        assert "\n" not in str(error.value)
        assert all(word in str(error.value) for word in [f"encoder.embeddings={path!r}", *named]), error.value


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in ("nowhere.txt", str(tmp_path)):
        spec = BiLSTMSpec(embeddings=path)
        for part in (spec.build, spec.make_tokenizer, spec.identity, spec.tokenizer_identity):
            with pytest.raises(UserError, match=f"encoder.embeddings='{path}' is not a file; give the path"):
                part()


def test_another_size_than_the_files_is_refused(glove: Callable[..., str]) -> None:
    assert BiLSTMSpec(embeddings=glove(), embedding_size=3).build().embeddings.embedding_dim == 3
    with pytest.raises(UserError, match=r"encoder\.embedding_size=4, .* have 3 values; use null"):
        BiLSTMSpec(embeddings=glove(), embedding_size=4).build()


# --- the spec --------------------------------------------------------------------------------------------------------


def test_the_identity_is_of_what_changes_the_feature_and_the_tokenizers_of_ids_alone() -> None:
    assert SPEC.identity() == replace(SPEC, learning_rate=0.5).identity()
    for change in (
        {"max_length": 64},
        {"hidden_size": 6},
        {"layers": 1},
        {"embedding_size": 8},
        {"tokenizer": "minilm"},
        {"dropout": 0.1},
    ):
        assert SPEC.identity() != replace(SPEC, **change).identity()  # type: ignore[arg-type]
    assert SPEC.tokenizer_identity() == replace(SPEC, hidden_size=6, layers=1).tokenizer_identity()
    assert SPEC.tokenizer_identity() != replace(SPEC, max_length=64).tokenizer_identity()
    assert replace(SPEC, embedding_size=None).identity() == replace(SPEC, embedding_size=128).identity()


def test_a_file_is_identified_by_its_content_not_its_place(glove: Callable[..., str]) -> None:
    here, there, other = glove(), glove(name="there.txt"), glove(GLOVE.replace("4 5 6", "4 5 7"), "other.txt")
    specs = [BiLSTMSpec(embeddings=path) for path in (here, there, other)]
    for identity in (BiLSTMSpec.identity, BiLSTMSpec.tokenizer_identity):
        assert identity(specs[0]) == identity(specs[1])
        assert identity(specs[0]) != identity(specs[2])
        assert identity(specs[0]) != identity(SPEC)
    # What a file settles by itself changes nothing.
    assert specs[0].identity() == replace(specs[0], tokenizer="tiny", embedding_size=3).identity()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hidden_size": 0}, "hidden_size=0"),
        ({"hidden_size": 1.5}, "hidden_size=1.5"),
        ({"layers": None}, "layers=None does not fit; use a whole number of 1 or more"),
        ({"layers": True}, "layers=True"),
        ({"max_length": 3}, "max_length=3 does not fit; use a whole number of 4 or more"),
        ({"embedding_size": "abc"}, "embedding_size='abc'"),
        ({"dropout": 1}, "dropout=1 does not fit; use a number of 0 or more and below 1"),
        ({"dropout": "abc"}, "dropout='abc'"),
        ({"embeddings": 3}, "embeddings=3 does not fit; use the path of a file"),
        ({"embeddings": ""}, "embeddings='' does not fit; use the path of a file"),
        ({"tokenizer": None}, "tokenizer=None does not fit; use minilm"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as error:
        BiLSTMSpec(**values)
    assert named in str(error.value)


def test_an_unknown_tokenizer_is_named() -> None:
    spec = replace(SPEC, tokenizer="./nowhere")
    for part in (spec.build, spec.make_tokenizer, spec.identity):
        with pytest.raises(UserError, match=r"encoder\.tokenizer='\./nowhere': .* is not a folder") as error:
            part()
        assert "\n" not in str(error.value)


# --- the whole chain -------------------------------------------------------------------------------------------------

CELL = [
    "encoder=bilstm", "encoder.tokenizer=tiny", "encoder.hidden_size=8", "encoder.embedding_size=8",
    "data.rows_per_task=40", "budget=20", "proxy.examples_per_task=10",
    *ONE_EPOCH, *(f"{part}.fit.precision=bf16" for part in ("proxy", "multitask", "finetune")),
]  # fmt: skip


def test_every_stage_runs_and_the_folder_gives_the_model_back(tmp_path: Path) -> None:
    cascade = ["scoring.cascade=[small,large]", "scoring.levels.small.layers=1", "scoring.precision=bf16"]
    exp = compose(*CELL, *cascade, "finetune.fit.freeze_layers=1", f"paths.output={tmp_path}")
    assert [one.encoder.layers for one in exp.passes] == [1, 2]
    assert len(exp.selected()) == 20
    model, task = load_finetuned(exp.finetune().path)
    assert model.encoder.spec == exp.encoder
    assert not model.training
    source, places = exp.pool.split(exp.primary, "validation"), np.arange(50)
    logits = forward_rows(model.encoder, model.heads[task.name], source, places, CPU, "test")
    told = pyarrow.parquet.read_table(exp.finetune().path / "validation.parquet")
    shown = torch.from_numpy(logits).softmax(1)[:, 0].numpy()
    np.testing.assert_allclose(told[f"p_{task.labels[0]}"].to_numpy()[:50], shown, atol=1e-5)
    text = exp.pool.split(exp.primary, "validation").texts([0])[0]
    ids, starts = model.encoder.spec.make_tokenizer()([text["text"]], None)
    assert ids[0] == source.ids[: source.offsets[1]].tolist()
    assert starts[0] == source.second[0]
    assert json.loads((exp.finetune().path / "config.json").read_text())["spec"] == "BiLSTMSpec"


def test_word_vectors_serve_the_chain_and_may_be_frozen(tmp_path: Path) -> None:
    words = [*vocabulary(), ".", ","]
    numbers = np.random.default_rng(0).normal(0, 0.4, (len(words), 8))
    lines = [f"{word} {' '.join(f'{x:.4f}' for x in row)}\n" for word, row in zip(words, numbers)]
    (tmp_path / "glove.txt").write_text("".join(lines))
    exp = compose(
        *CELL, f"encoder.embeddings={tmp_path}/glove.txt", "encoder.embedding_size=null", "selection=none",
        "finetune.fit.freeze_embeddings=true", f"paths.output={tmp_path}",
    )  # fmt: skip
    kept = load_finetuned(exp.finetune().path)[0].encoder.embedding_module()
    assert isinstance(kept, nn.Embedding)
    assert torch.equal(kept.weight, exp.encoder.build().embedding_module().weight)  # type: ignore[union-attr]
    # Of the sample's words none is unknown.
    assert 1 not in exp.pool.split(exp.primary, "train").ids


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_train_what_one_device_trains(tmp_path: Path, pool: Any, strategy: Any) -> None:
    fit = FitConfig(epochs=2, batch_size=7, learning_rate=1e-3, max_grad_norm=0.1, precision="fp32", dropout=0.0)
    weights = []
    for name, hardware in (("one", Hardware("cpu")), ("two", Hardware("cpu", devices=2, strategy=strategy))):
        job = FitJob(
            title=name, pool=pool, encoder=SPEC, fit=fit, sampling=Proportional(), seed=0, pad_id=0,  # type: ignore[arg-type]
            out=tmp_path / name, hardware=hardware,
            **row_sets(pool, rows={task: np.arange(12) for task in pool.names}),
        )  # fmt: skip
        job.out.mkdir()
        run_fit(job)
        weights.append(load_file(job.out / "weights.safetensors"))
    assert set(weights[0]) == set(weights[1])
    for name, values in weights[0].items():
        torch.testing.assert_close(values, weights[1][name], atol=2e-4, rtol=0)


@pytest.mark.slow
def test_a_file_of_glove_6b_size_is_read_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tails = [" ".join(f"{x:.5g}" for x in row) for row in rng.normal(0, 0.4, (1000, 100))]
    path = tmp_path / "glove.txt"
    with open(path, "w") as file:
        file.writelines(f"word{i} {tails[i % 1000]}\n" for i in range(400_000))
    spec = BiLSTMSpec(hidden_size=3, embeddings=str(path))
    started = time.process_time()
    assert spec.make_tokenizer()(["word7 word399999"], None)[0] == [[9, 400_001]]
    assert spec.vectors().weight.shape == (400_002, 100)
    assert time.process_time() - started < 60  # seconds of the processor; about 8 were seen
    path.unlink()
