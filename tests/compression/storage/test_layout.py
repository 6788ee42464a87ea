"""What a tensor takes in the file: its bits, whatever its layout in memory, and an index."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization import quantize_weights
from compression.storage import contents, load, save
from compression.storage.encoding import DTYPES, decode, encode
from tests.support.storage_faults import small_descriptions
from tests.support.storage_nets import Bag, Factory, digest, empty, raw, tied, untied
from tests.support.strategies import examples


def _layout(flat: Tensor, shape: list[int], layout: str) -> Tensor:
    """Return the elements in one of the layouts that a state dict may hold."""
    tensor = flat.view(shape)
    match layout:
        case "sliced":
            return torch.stack([torch.zeros_like(tensor), tensor])[1]
        case "strided":
            return torch.stack([tensor, tensor], dim=-1)[..., 0]
        case "expanded" if tensor.ndim:
            return tensor[..., :1].expand(shape) if tensor.numel() else tensor
    return tensor


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bit patterns, many of them zero, of any stored dtype, 0 to 3 dimensions, any layout."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    numel = int(torch.Size(shape).numel())
    elements = draw(
        st.lists(st.just(0) | st.integers(1, 2**64 - 1), min_size=numel, max_size=numel)
    )
    width = dtype.itemsize
    if dtype == torch.bool:
        data = bytes(e % 2 for e in elements)
    else:
        data = b"".join((e % 256**width).to_bytes(width, "little") for e in elements)
    flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
    layout = draw(st.sampled_from(["packed", "sliced", "strided", "expanded"]))
    return _layout(flat, shape, layout)


STREAMS = ("mask", "gaps", "values", "codes", "codebook", "indices")
names = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=8)
# Data, never paths or other entries of the file.
odd_names = st.sampled_from(["/x", "a/b", "x#mask", "x#values", "x#codes", "\n", '"', "é", "\0"])


@settings(max_examples=examples(2))
@given(st.dictionaries(odd_names | names, tensors(), max_size=4), st.booleans())
def test_any_tensor_comes_back(
    tmp_path_factory: pytest.TempPathFactory, bag: dict[str, Tensor], coded: bool
) -> None:
    reserved = {n for n in bag if n == "__metadata__" or hasattr(nn.Module(), n)}
    bag = {n: t for n, t in bag.items() if n not in reserved}
    path = tmp_path_factory.mktemp("bag") / "model"
    model = Bag(bag)
    if any(f"{name}#{stream}" in bag for name in bag for stream in STREAMS):
        return  # may be refused: test_refuses_extra_state_and_reserved_names
    with small_descriptions():
        for name, tensor in bag.items():
            about, entries = encode(name, tensor, num_bits=None, entropy_coded=coded)
            assert raw(decode(name, json.loads(json.dumps(about)), entries)) == raw(tensor)
        if not all(tensor.isfinite().all() for tensor in bag.values()):
            with pytest.raises(CompressionError, match="NaN or infinite"):
                save(model, path, entropy_coded=coded)
            return
        save(model, path, entropy_coded=coded)
    loaded = load(path, lambda: empty(bag))
    assert digest(loaded) == digest(model)
    assert sum(contents(path).values()) == path.stat().st_size
    for tensor in loaded.state_dict().values():
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@pytest.mark.parametrize(
    ("present", "index"),
    [(8, 8), (13, 13), (20, 13)],  # a byte a gap, or 100 bits of mask
)
def test_contents_by_hand(tmp_path: Path, present: int, index: int) -> None:
    weight = torch.zeros(10, 10)
    weight.view(-1)[: present - 1] = torch.arange(1.0, present)
    weight[9, 0] = -0.0  # a value
    path = tmp_path / "model"
    stored_bytes = save(Bag({"weight": weight, "bias": torch.arange(3.0) + 1}), path)
    found = contents(path)
    assert found["values"] == present * 4 + 3 * 4
    assert found["index"] == index
    assert found["codebook"] == 0
    assert found["metadata"] == stored_bytes - found["values"] - index


def test_few_values_are_a_codebook_and_indices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codebook = torch.randn(16)
    weight = codebook[torch.randint(0, 16, (1000,))]
    save(Bag({"weight": weight}), tmp_path / "model")
    found = contents(tmp_path / "model")
    assert (found["values"], found["index"], found["codebook"]) == (500, 0, 16 * 4)
    weight[torch.rand(1000) < 0.9] = 0
    left = int((weight != 0).sum())
    save(Bag({"weight": weight}), tmp_path / "model")
    found = contents(tmp_path / "model")
    assert found["values"] == -(-left // 2)
    assert left <= found["index"] <= left + 2  # gaps
    assert found["codebook"] == 16 * 4


@pytest.mark.parametrize(("num_bits", "values"), [(8, 1000), (5, 625), (4, 500), (2, 250)])
def test_codes_take_their_bits(tmp_path: Path, num_bits: int, values: int) -> None:
    torch.manual_seed(0)
    model = quantize_weights(nn.Sequential(nn.Linear(100, 10, bias=False)), num_bits=num_bits)
    save(model, tmp_path / "model")
    found = contents(tmp_path / "model")
    scales = 10 * 4
    # A mask beside 8-bit codes pays from 1/8 of zeros on; 2-bit codes are zero more often.
    assert found["values"] + found["index"] <= values + scales
    assert found["values"] + found["index"] > 0.9 * values or num_bits == 2


def test_another_encoding_must_save_more_than_its_description(tmp_path: Path) -> None:
    for zeros in (43, 44):  # 13 bytes of mask and 160 of description; a zero saves 4
        weight = torch.arange(1.0, 101.0)
        weight[:zeros] = 0
        save(Bag({"weight": weight}), tmp_path / "model")
        assert contents(tmp_path / "model")["index"] == (13 if zeros == 44 else 0)


@pytest.mark.parametrize("zeros", [0, 3, 4])
def test_a_mask_is_stored_only_where_it_pays(tmp_path: Path, zeros: int) -> None:
    weight = torch.arange(1.0, 101.0)
    weight[:zeros] = 0
    with small_descriptions():
        save(Bag({"weight": weight}), tmp_path / "model")
    found = contents(tmp_path / "model")
    # 13 bytes of mask: 3 zeros save 12 bytes, 4 save 16.
    assert found["index"] == (13 if zeros == 4 else 0)
    assert found["values"] == (384 if zeros == 4 else 400)


def test_views_of_a_large_tensor_are_stored_alone(tmp_path: Path) -> None:
    large = torch.randn(1000, 1000)
    bag = {"slice": large[3, 10:20], "column": large[:10, 5], "one": large[:1, :1].expand(20, 1)}
    assert save(Bag(bag), tmp_path / "model") < 1200
    loaded = load(tmp_path / "model", lambda: Bag(bag))
    assert all(torch.equal(loaded.get_parameter(name), bag[name]) for name in bag)


@pytest.mark.parametrize("factory", [tied, untied])
def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path, factory: Factory) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model"
    save(tied(), path)
    assert contents(path)["values"] == (16 * 16 + 16 + 16) * 4
    loaded = load(path, factory)
    assert loaded.get_parameter("encoder.weight") is loaded.get_parameter("decoder.weight")
    assert len(list(loaded.parameters())) == 3


@pytest.mark.parametrize("factory", [tied, untied])
def test_what_the_file_has_twice_is_not_tied(tmp_path: Path, factory: Factory) -> None:
    torch.manual_seed(0)
    model = untied()  # copied into a tied network, the last of the two weights would win
    save(model, tmp_path / "model")
    assert digest(load(tmp_path / "model", factory)) == digest(model)


class ExtraState(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}


class Subclass(Tensor):
    pass


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        (torch.zeros(2, device="meta"), "meta"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "torch.float8_e4m3fn"),
        (torch.zeros(2).as_subclass(Subclass), "Subclass"),
    ],
)
def test_refuses_by_name_what_has_no_plain_bytes(
    tmp_path: Path, tensor: Tensor, found: str
) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("odd", tensor)
    with pytest.raises(UnsupportedTypeError, match=rf"odd: expected a .*found .*{found}"):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_refuses_extra_state_and_reserved_names(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTypeError, match=r"_extra_state: .* found dict"):
        save(ExtraState(2, 2), tmp_path / "model")
    with pytest.raises(CompressionError, match="__metadata__: safetensors reserves"):
        save(Bag({"__metadata__": torch.ones(2)}), tmp_path / "model")
    sparse_beside_its_gaps = {"x": torch.zeros(9), "x#gaps": torch.ones(1)}
    with small_descriptions(), pytest.raises(CompressionError, match="already has an entry"):
        save(Bag(sparse_beside_its_gaps), tmp_path / "model")
