"""The stream: the right samples, in the right order, for any number of ranks, after any interruption."""

from __future__ import annotations

import ast
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipfold.clip import ClipBatch, ClipSpec
from clipfold.errors import ResumeError, ShardError
from clipfold.shards.reader import Corpus
from clipfold.stream.loader import ClipStream
from clipfold.world import World

M = 37  # samples of train
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def number_of(key: str) -> int:
    """The number of the sample that has this key."""
    return int(key.partition("-")[0])


@pytest.mark.parametrize("codec", ["raw", "lossless", "jpeg"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_slot_holds_what_its_key_says(
    corpora: Callable[[str], Path], codec: str, split: str, numbers_in: Any
) -> None:
    with ClipStream(corpora(codec), split=split, batch_size=5, num_threads=3) as stream:
        seen = []
        for batch in stream:
            n = [number_of(key) if key else -1 for key in batch.keys]
            assert numbers_in(batch.pixels_BSCHW) == n
            assert batch.pixels_BSCHW.shape == (5, 4, 3, 8, 16)
            assert batch.pixels_BSCHW.dtype == torch.uint8
            assert batch.valid.tolist() == [key != "" for key in batch.keys]
            assert batch.labels.tolist() == [max(k, 0) % 7 for k in n]
            assert batch.num_valid_frames.tolist() == [1 + k % 4 if k >= 0 else 0 for k in n]
            assert [key[-4:] for key in batch.keys if key] == [f"{k % 3:04d}" for k in n if k >= 0]
            seen += [k for k in n if k >= 0]
        assert sorted(seen) == (list(range(M)) if split == "train" else list(range(M, M + 11)))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_other_dtypes(tmp_path: Path, dtype: Any, numbers_in: Any, write_corpus: Any) -> None:
    spec = ClipSpec(num_frames=4, channels=1, height=2, width=3, dtype=dtype)
    root = write_corpus(tmp_path / "c", {"train": [3, 2]}, spec=spec)
    with ClipStream(root, batch_size=5) as stream:
        batch = next(iter(stream))
        assert batch.pixels_BSCHW.dtype == getattr(torch, dtype)
        assert numbers_in(batch.pixels_BSCHW) == [number_of(key) for key in batch.keys]


def test_padded_evaluation(corpus: Corpus) -> None:
    batches = []
    with ClipStream(corpus, split="val", batch_size=4) as stream:
        assert len(stream) == 3
        batches = [batch.clone() for batch in stream]
        assert stream.state_dict()["position"] == 11  # the end of the epoch, not of the padded batch
        assert [stream.epoch, len(stream)] == [1, 3]
        again = [list(batch.keys) for batch in stream]
    assert [number_of(key) for batch in batches for key in batch.keys if key] == list(range(M, M + 11))
    last = batches[-1]
    assert last.valid.tolist() == [True, True, True, False]
    assert last.keys[3] == ""
    assert not last.pixels_BSCHW[3].any()
    assert [int(x[3]) for x in (last.labels, last.num_valid_frames, last.positions)] == [0, 0, -1]
    assert again == [list(batch.keys) for batch in batches]


def test_padded_evaluation_over_ranks(corpus: Corpus) -> None:
    for world_size in (2, 3, 7):
        shares = []
        for rank in range(world_size):
            with ClipStream(corpus, split="val", batch_size=2, world=World(rank, world_size)) as stream:
                shares.append([(list(batch.keys), batch.valid.tolist()) for batch in stream])
        assert len({len(share) for share in shares}) == 1  # equal steps for every rank
        valid = [key for share in shares for keys, ok in share for key, good in zip(keys, ok, strict=True) if good]
        assert sorted(map(number_of, valid)) == list(range(M, M + 11))


def test_crossing_the_border_of_an_epoch(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=5, tail="cross") as stream:
        lengths, numbers, epochs = [], [], []
        for _ in range(5):
            announced = len(stream)
            found = [(batch.epoch, [number_of(key) for key in batch.keys], batch.valid.all()) for batch in stream]
            assert announced == len(found)
            lengths.append(len(found))
            numbers += [number for _, batch, _ in found for number in batch]
            epochs += [epoch for epoch, _, _ in found]
            assert all(valid for _, _, valid in found)
    assert lengths == [8, 7, 8, 7, 7]  # borders at 37, 74, 111, 148 and 185; positions 40, 75, 115, 150 and 185
    assert epochs == sorted(epochs)
    assert epochs[0] == 0
    for epoch in range(5):
        assert sorted(numbers[epoch * M : (epoch + 1) * M]) == list(range(M))


@pytest.mark.parametrize("tail", ["pad", "cross"])
@pytest.mark.parametrize("lanes", [{}, {"num_lanes": 3, "block_size": 5}])
def test_same_global_batches_on_any_number_of_ranks(corpus: Corpus, tail: Any, lanes: Any, steps_of: Any) -> None:
    options = {"tail": tail, "seed": 4} | lanes
    expected, _ = steps_of(corpus, 7, world_size=1, accumulate=1, batch_size=12, **options)
    for world_size, accumulate in [(1, 4), (2, 1), (2, 3), (3, 2), (12, 1), (4, 3)]:
        batch_size = 12 // world_size // accumulate
        found, _ = steps_of(
            corpus, 7, world_size=world_size, accumulate=accumulate, batch_size=batch_size, num_threads=1, **options
        )
        assert found == expected


@FEW
@given(
    stops=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)), min_size=4, max_size=4),
    lanes=st.none() | st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_resumed_anywhere_on_anything_is_uninterrupted(
    corpus: Corpus,
    stops: list[int],
    shapes: list[tuple[int, int, int]],
    lanes: int | None,
    seed: int,
    keys_of: Any,
    steps_of: Any,
) -> None:
    options: dict[str, Any] = {"tail": "cross", "seed": seed, "num_lanes": lanes}
    parts, state = [], None
    for num_steps, (world_size, accumulate, batch_size) in zip([*stops, 1], shapes, strict=False):
        steps, state = steps_of(
            corpus, num_steps, world_size=world_size, accumulate=accumulate, batch_size=batch_size,
            num_threads=batch_size, state=state, **options,
        )  # fmt: skip
        parts += steps
    sizes = [len(step) for step in parts]
    start = 0
    for size, step in zip(sizes, parts, strict=True):  # each step holds the very positions that come next
        with ClipStream(corpus, batch_size=size, **options) as whole:
            whole.load_state_dict(whole.state_dict() | {"position": start})
            assert step == list(next(iter(whole)).keys)
        start += size
    assert state is not None
    assert state["position"] == start
    numbers = [number_of(key) for step in parts for key in step]
    with ClipStream(corpus, batch_size=1, **options) as single:
        if lanes is None:  # with one lane the slots of a step are in the order of the sequence
            assert numbers == [number_of(key) for (key,) in keys_of(single, len(numbers))]
    for epoch in range(start // M):
        inside = [number_of(key) for key in _keys_of_epoch(keys_of, corpus, epoch, options)]
        assert sorted(inside) == list(range(M))


def _keys_of_epoch(keys_of: Any, corpus: Corpus, epoch: int, options: dict[str, Any]) -> list[str]:
    with ClipStream(corpus, batch_size=1, **options) as stream:
        stream.load_state_dict(stream.state_dict() | {"position": epoch * M})
        return [key for (key,) in keys_of(stream, M)]


def test_state_counts_what_was_handed_out(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=3, prefetch=5) as stream:
        assert stream.state_dict()["position"] == 0
        for number, _ in enumerate(stream):
            assert stream.state_dict()["position"] == min((number + 1) * 3, M)  # before the batch is used


def test_leaving_a_loop_loses_nothing(corpus: Corpus, keys_of: Any) -> None:
    with ClipStream(corpus, batch_size=4) as whole:
        expected = keys_of(whole)
    with ClipStream(corpus, batch_size=4) as stream:
        found = keys_of(stream, 1) + keys_of(stream, 4)
        assert len(stream) == 5
        found += [list(batch.keys) for batch in stream]
    assert found == expected


def test_a_step_that_was_left_half_way_is_done_again(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=4, accumulate=2) as stream:
        assert len(stream) == 10
        it = iter(stream)
        first = [list(next(it).keys) for _ in range(3)]
        assert stream.state_dict()["position"] == 8
        again = [list(batch.keys) for batch in stream]
    assert again[0] == first[2]
    assert len(again) == 8
    with pytest.raises(RuntimeError, match="has ended"):
        next(it)


def test_prepared_batches_are_not_read_again_for_the_next_epoch(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=5, tail="cross", prefetch=2) as stream:
        for _ in range(4):
            for _ in stream:
                pass
        assert stream.stats()["num_clips"] <= (stream.stats()["num_batches"] + 3) * 5


def test_a_batch_stays_valid_until_the_next_one_is_asked_for(corpora: Callable[[str], Path], numbers_in: Any) -> None:
    with ClipStream(corpora("raw"), batch_size=4, prefetch=1, tail="cross", num_threads=4) as stream:
        addresses = set()
        for _ in range(6):
            for batch in stream:
                time.sleep(0.002)  # threads run ahead as far as they may
                assert numbers_in(batch.pixels_BSCHW) == [number_of(key) for key in batch.keys]
                addresses.add(batch.pixels_BSCHW.data_ptr())
        assert len(addresses) == 2  # memory for prefetch + 1 batches, used again and again


def test_no_page_locked_memory_without_a_gpu(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=2) as stream:
        assert not next(iter(stream)).pixels_BSCHW.is_pinned()


def test_seed_and_epoch_change_the_order(corpus: Corpus, keys_of: Any) -> None:
    orders = set()
    for seed in range(3):
        with ClipStream(corpus, batch_size=M, seed=seed) as stream:
            orders.update(tuple(keys) for keys in keys_of(stream, 2))
    assert len(orders) == 6


def test_url_and_file_give_the_same(corpora: Callable[[str], Path]) -> None:
    for codec in ("raw", "jpeg"):
        batches: list[list[ClipBatch]] = []
        for data in (corpora(codec), f"file://{corpora(codec)}"):
            with ClipStream(data, batch_size=6, num_threads=2) as stream:
                batches.append([batch.clone() for batch in stream])
        for one, other in zip(*batches, strict=True):
            assert one.keys == other.keys
            assert torch.equal(one.pixels_BSCHW, other.pixels_BSCHW)


# What is refused at the door


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"batch_size": 2.5}, "batch_size: 2.5"),
        ({"split": "dev"}, "'dev', expected one of train, val, test"),
        ({"split": "test"}, "is empty"),
        ({"accumulate": 0}, "accumulate"),
        ({"tail": "drop"}, "tail: 'drop', expected one of pad, cross"),
        ({"on_error": "skip"}, "expected one of raise, substitute"),
        ({"num_threads": 0}, "num_threads"),
        ({"prefetch": 0}, "prefetch"),
        ({"max_failures": -1}, "max_failures"),
        ({"seed": -1}, "seed"),
        ({"device": "meta"}, "expected 'cpu' or 'cuda'"),
        ({"device": "xyz"}, "device: 'xyz', expected 'cpu', 'cuda' or 'cuda:<number>'"),
        ({"tail": "cross", "batch_size": 38}, "use a smaller batch size, fewer ranks or more data"),
        ({"tail": "cross", "batch_size": 38}, "global batch of 38 clips"),
        ({"tail": "cross", "batch_size": 10, "accumulate": 2, "world": World(0, 2)}, "global batch of 40 clips"),
    ],
)
def test_wrong_arguments(corpus: Corpus, bad: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ClipStream(corpus, **{"batch_size": 4} | bad)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"world": 2}, r"world: 2, expected World\(rank, world_size\)"),
        ({"world": (0, 1)}, r"world: \(0, 1\), expected World"),
        ({"data": None}, "data: None, expected a folder or URL of a corpus, or an opened Corpus"),
        ({"shuffle": "yes"}, "shuffle: 'yes', expected True, False"),
        ({"verify_checksums": "no"}, "verify_checksums: 'no', expected True or False"),
        ({"meta": 1}, "meta: 1, expected True or False"),
        ({"device": 1.5}, "device: 1.5, expected 'cpu'"),
    ],
)
def test_arguments_of_another_type(corpus: Corpus, bad: dict[str, Any], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        ClipStream(**{"data": corpus, "batch_size": 4} | bad)


def test_a_batch_may_be_larger_than_a_padded_epoch(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=50) as stream:
        (batch,) = [batch.clone() for batch in stream]
    assert int(batch.valid.sum()) == M


def test_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"dataset\.json"):
        ClipStream(tmp_path, batch_size=1)


def test_states_of_something_else(corpus: Corpus, tmp_path: Path, write_corpus: Any) -> None:
    other = write_corpus(tmp_path / "other", {"train": [5, 3, 8, 1, 19], "val": [4, 7]})
    with ClipStream(corpus, batch_size=4) as stream, ClipStream(other, batch_size=4) as stranger:
        before = stream.state_dict()
        assert set(map(type, before.values())) == {int, str}
        with pytest.raises(ResumeError, match="num_samples 36, expected 37"):
            stream.load_state_dict(stranger.state_dict())
        with pytest.raises(ResumeError, match="seed 9, expected 0"):
            stream.load_state_dict(before | {"seed": 9})
        with pytest.raises(ResumeError, match="order version"):
            stream.load_state_dict(before | {"order_version": 99})
        with pytest.raises(ResumeError, match="cannot be used"):
            stream.load_state_dict(before | {"num_lanes": 0})
        with ClipStream(corpus, batch_size=4, split="val") as val, pytest.raises(ResumeError, match="split 'train'"):
            val.load_state_dict(before)
        assert stream.state_dict() == before


def test_loading_a_state_ends_the_iteration(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=4, accumulate=2) as stream:
        it = iter(stream)
        for _ in range(3):
            next(it)
        stream.load_state_dict(stream.state_dict())
        with pytest.raises(RuntimeError, match="a state was loaded"):
            next(it)
        assert len(list(stream)) == len(stream) - 2  # one step of five is done; len is now that of the next epoch


def test_what_was_left_open_is_taken_from_the_state(corpus: Corpus, keys_of: Any) -> None:
    with ClipStream(corpus, batch_size=4, num_lanes=2, block_size=6, run_length=2) as stream:
        expected = keys_of(stream, 2)[1:]
        state = stream.state_dict() | {"position": 4}
    with ClipStream(corpus, batch_size=4) as resumed:
        resumed.load_state_dict(state)
        assert keys_of(resumed, 1) == expected
        assert resumed.state_dict()["num_lanes"] == 2
    with ClipStream(corpus, batch_size=4, num_lanes=3) as other, pytest.raises(ResumeError, match="num_lanes 2"):
        other.load_state_dict(state)


# Threads


def stream_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("clipfold-stream")]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "still not so after 10 s"
        gc.collect()
        time.sleep(0.01)


def test_no_thread_outlives_its_stream(corpus: Corpus) -> None:
    wait_until(lambda: not stream_threads())
    with ClipStream(corpus, batch_size=4, num_threads=3) as stream:
        next(iter(stream))
        assert stream_threads()
    assert not stream_threads()
    forgotten = ClipStream(corpus, batch_size=4, num_threads=3)
    abandoned = iter(forgotten)
    next(abandoned)
    del forgotten, abandoned
    wait_until(lambda: not stream_threads())


def test_threads_that_share_an_iterator_get_each_batch_once(corpus: Corpus) -> None:
    num_threads = 8
    for _ in range(5):
        with ClipStream(corpus, batch_size=1, num_threads=2) as stream:
            shared, keys = iter(stream), list[str]()
            together = threading.Barrier(num_threads)

            def consume(
                shared: Iterator[ClipBatch] = shared, keys: list[str] = keys, together: threading.Barrier = together
            ) -> None:
                together.wait()
                for batch in shared:
                    keys.extend(batch.keys)

            threads = [threading.Thread(target=consume) for _ in range(num_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(map(number_of, keys)) == list(range(M))
            assert stream.position == M


def test_closing(corpus: Corpus) -> None:
    stream = ClipStream(corpus, batch_size=4)
    it = iter(stream)
    next(it)
    state = stream.state_dict()
    stream.close()
    stream.close()
    assert stream.state_dict() == state
    with pytest.raises(RuntimeError, match="has ended"):
        next(it)
    with pytest.raises(ValueError, match="closed"):
        iter(stream)


def test_an_interrupt_while_waiting_loses_nothing(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, keys_of: Any
) -> None:
    with ClipStream(corpus, batch_size=4) as whole:
        expected = keys_of(whole)
    with ClipStream(corpus, batch_size=4) as stream:
        found = keys_of(stream, 3)
        changed = stream._running_pipeline()._changed
        monkeypatch.setattr(stream._pipeline, "_is_ready", lambda ticket: False)
        monkeypatch.setattr(changed, "wait", _interrupt_once(changed.wait))
        with pytest.raises(KeyboardInterrupt):
            next(iter(stream))
        found += [list(batch.keys) for batch in stream]
    assert found == expected


def _interrupt_once(wait: Callable[..., bool]) -> Callable[..., bool]:
    calls: list[int] = []

    def interrupted(*args: Any) -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait(*args)

    return interrupted


def test_an_error_in_a_thread_surfaces_once_and_in_its_place(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClipStream(corpus, split="val", batch_size=2, prefetch=4, num_threads=3) as stream:
        healthy = stream._filler.fill

        def broken(host: Any, piece: Any, **options: Any) -> Any:
            if 5 in piece.positions:
                raise MemoryError("no memory")
            return healthy(host, piece, **options)

        monkeypatch.setattr(stream._filler, "fill", broken)
        it, seen = iter(stream), []
        with pytest.raises(MemoryError, match="no memory"):
            for batch in it:
                seen.append(list(batch.keys))
        assert len(seen) == 2  # those before it came out
        assert stream.state_dict()["position"] == 4
        assert next(it, None) is None
        monkeypatch.setattr(stream._filler, "fill", healthy)
        assert len(list(stream)) == 4


def test_statistics(corpus: Corpus) -> None:
    with ClipStream(corpus, batch_size=10) as stream:
        for _ in stream:
            pass
        found = stream.stats()
    assert found["num_batches"] == 4
    assert found["num_clips"] == M
    assert found["read_bytes"] == M * (128 + stream.spec.num_bytes)
    assert found["num_failures"] == 0
    assert found["wait_seconds"] == stream.wait_seconds > 0
    assert stream.stats() == found  # also after it was closed


def test_a_program_may_end_in_the_middle(corpora: Callable[[str], Path]) -> None:
    code = (
        "import sys; from clipfold.stream.loader import ClipStream; "
        "stream = ClipStream(sys.argv[1], batch_size=2, prefetch=4); it = iter(stream); next(it)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(corpora("raw"))], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_indexes_are_read_without_the_parser(
    corpora: Callable[[str], Path], keys_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11's parser is not safe between threads (SystemError, now and then), so no thread may need it."""

    def broken(*_: Any) -> None:
        raise SystemError("AST constructor recursion depth mismatch (before=57, after=56)")

    monkeypatch.setattr(ast, "literal_eval", broken)
    with ClipStream(corpora("raw"), batch_size=M) as stream:
        assert len(keys_of(stream)) == 1


def test_a_stream_first_read_in_inference_mode_can_be_trained_on_later(corpus: Corpus) -> None:
    weight = torch.ones(1, requires_grad=True)
    with ClipStream(corpus, split="val", batch_size=4) as stream:
        with torch.inference_mode():
            assert len(list(stream)) == 3
        for batch in stream:
            (batch.pixels_BSCHW.float() * weight).sum().backward()
            assert not batch.labels.is_inference()
