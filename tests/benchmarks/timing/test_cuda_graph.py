"""What a CUDA graph may be timed for: it replays the work, and says why it cannot hold some."""

import pytest
import torch
from torch import Tensor

from benchmarks.timing.cuda_graph import UncapturableError, capture, obstacle
from tests.support.fake_cuda import FakeCuda

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def test_the_capture_is_warm_and_on_the_stream_that_was_warmed(fake: FakeCuda) -> None:
    captured = capture(fake.log_work(lambda: torch.zeros(2)))
    assert fake.log == [
        "side waits for outside",
        *["work on side"] * 3,
        "work on side, refusing",
        "outside waits for side",
        "capture on side",
        "work on side",
    ]
    assert fake.current is fake.outside
    assert fake.mode == 0
    captured.replay()
    assert fake.log[-1] == "replay on outside"


def test_a_replay_that_writes_nothing_leaves_nan(fake: FakeCuda) -> None:
    captured = capture(lambda: torch.ones(2))
    assert captured.replay_output().isnan().all()
    fake.on_replay = lambda: captured.output.copy_(torch.tensor([1.0, 2.0]))
    assert captured.replay_output().tolist() == [1.0, 2.0]


def test_work_that_waits_for_the_device_is_not_captured_at_all(fake: FakeCuda) -> None:
    def work() -> Tensor:
        if fake.mode == 2:
            fake.synchronize()
        return torch.zeros(2)

    fake.mode = 1
    with pytest.raises(
        UncapturableError,
        match=r"^cannot be captured in a CUDA graph: it waits for the device in synchronize "
        r"\(fake_cuda.py:\d+\)$",
    ):
        capture(work)
    assert not any(line.startswith("capture") for line in fake.log)
    assert (fake.current, fake.mode) == (fake.outside, 1)


def test_a_capture_that_fails_says_of_what_and_leaves_the_stream(fake: FakeCuda) -> None:
    def work() -> Tensor:
        if fake.capturing:  # as a library's own wait, which torch does not see beforehand
            fake.synchronize()
        return torch.zeros(2)

    with pytest.raises(UncapturableError, match="graph: operation not permitted when stream is"):
        capture(work)
    assert fake.current is fake.outside


@pytest.mark.parametrize("error", [RuntimeError("a bug"), torch.cuda.OutOfMemoryError("full")])
def test_other_errors_stay_what_they_are(fake: FakeCuda, error: RuntimeError) -> None:
    def work() -> Tensor:
        if fake.mode == 2:
            raise error
        return torch.zeros(2)

    with pytest.raises(type(error), match=str(error)):
        capture(work)
    assert (fake.current, fake.mode) == (fake.outside, 0)


def test_work_without_an_obstacle_has_none(fake: FakeCuda) -> None:
    assert obstacle(lambda: torch.zeros(2)) is None


@pytest.mark.gpu
@needs_cuda
def test_a_graph_gives_what_the_eager_work_gives_of_new_inputs_too() -> None:
    layer = torch.nn.Conv2d(3, 8, 3, device="cuda").eval()
    images = torch.randn(4, 3, 16, 16, device="cuda")

    @torch.inference_mode()
    def work() -> Tensor:
        return layer(images)

    captured = capture(work)
    for _ in range(2):
        assert torch.allclose(captured.replay_output(), work(), atol=1e-2)  # TF32 at worst
        images.normal_()


@pytest.mark.gpu
@needs_cuda
def test_a_graph_of_nothing_is_seen() -> None:
    kept = torch.ones(2, device="cuda")
    with pytest.warns(UserWarning, match="CUDA Graph is empty"):
        captured = capture(lambda: kept)
    assert captured.replay_output().isnan().all()


@pytest.mark.gpu
@needs_cuda
def test_what_waits_for_the_gpu_is_refused_and_the_next_capture_works() -> None:
    x = torch.randn(16, device="cuda")

    def work() -> Tensor:
        return x * x.max().item()

    with pytest.raises(
        UncapturableError, match=r"it waits for the device in work \(test_cuda_graph"
    ):
        capture(work)
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.equal(capture(lambda: x * 2).replay_output(), x * 2)
