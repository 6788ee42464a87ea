"""What a file is that is no model file of a kind we read, and what to do with it."""

import zipfile

HEAD_BYTES = 4096
"""So many first bytes tell."""

_UNPACK = "unpack it, and pass the model file in it"
_STATE = "load it with its own library, and write model.state_dict() with torch.save"
_MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer, not the file; run git lfs pull",
    # The magic number of torch.save before 1.6, as pickle writes it.
    b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19": (
        "an old torch file (of torch.save before 1.6); "
        "torch.save(torch.load(path, weights_only=True), path) writes it anew"
    ),
    b"\x80": "a bare pickle, which may hold code and is not read; write a state dict with torch.save",
    b"PK\x03\x04": "a zip of torch.save; use load_checkpoint",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": f"a gzip archive; {_UNPACK}",
    b"\xfd7zXZ\0": f"an xz archive; {_UNPACK}",
    b"BZh": f"a bzip2 archive; {_UNPACK}",
    b"\x28\xb5\x2f\xfd": f"a zstd archive; {_UNPACK}",
    b"7z\xbc\xaf\x27\x1c": f"a 7z archive; {_UNPACK}",
    b"Rar!": f"a rar archive; {_UNPACK}",
    b"\x93NUMPY": f"a numpy array; {_STATE}",
    b"\x89HDF\r\n\x1a\n": f"an HDF5 file (Keras writes such); {_STATE}",
    b"GGUF": f"a GGUF file; {_STATE}",
}
_TAR_PLACE, _TAR = 257, b"ustar"
_TFLITE_PLACE, _TFLITE = 4, b"TFL3"
# Field 1, a version below 32, then field 2, as bytes: how ONNX and TensorFlow begin.
_VERSIONS = range(1, 32)


def foreign_format(head: bytes) -> str | None:
    """Say what a file with these first bytes is, and what to do; None where they do not tell.

    Ask it only of what is no safetensors file, whose first bytes are a number and may be any.
    """
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            return what
    if head[_TAR_PLACE:].startswith(_TAR):
        return f"a tar archive; {_UNPACK} (torch before 0.4 wrote such: write it anew with that)"
    if head[_TFLITE_PLACE:].startswith(_TFLITE):
        return f"a TensorFlow Lite model; {_STATE}"
    if head[:1] == b"\x08" and head[1:2] and head[1] in _VERSIONS and head[2:3] == b"\x12":
        return f"a protobuf (an ONNX or TensorFlow model); {_STATE}"
    return _text(head)


def _text(head: bytes) -> str | None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page, as a server answers with for a login or an error; download it again"
    if text.startswith(b"<"):
        return "an XML or HTML text, as a server answers with for an error; download it again"
    if b'"weight_map"' in text:
        return "the index of a model in several safetensors files; join the files that it names"
    if text.startswith((b"{", b"[")):
        return "a JSON text"
    printable = bytes(range(32, 127)) + b"\t\r\n"
    return "a text" if text and not text.strip(printable) else None


def foreign_zip(archive: zipfile.ZipFile) -> str | None:
    """Say what a zip is that torch.save did not write of a state dict; None for what it wrote."""
    names = archive.namelist()
    leaves = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in leaves and any(leaf.startswith("code/") for leaf in leaves):
        return "a TorchScript archive; torch.save(torch.jit.load(path).state_dict(), path) is read"
    if "model.weights.h5" in leaves:
        return f"a Keras model; {_STATE}"
    if names and all(name.endswith(".npy") for name in names):
        return f"numpy arrays (.npz); {_STATE}"
    if "data.pkl" not in leaves:
        return f"a zip archive that torch.save did not write; {_UNPACK}"
    return None
