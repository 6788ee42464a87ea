"""The READMEs: their Python runs, their links, commands and options lead somewhere."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baseline import check_before_reading, check_outputs
from benchmarks.baseline.folders import ImageFolder
from benchmarks.baseline.judged import judged
from benchmarks.gate.rules import TOLERANCES
from benchmarks.report.documents import readmes
from benchmarks.technique import Technique
from benchmarks.timing.speed_up import MAX_PAIRS
from benchmarks.workloads import WORKLOADS, Workload
from compression import Architecture, Recipe, Split, load, sparsity
from compression.integer import Executor, has_integer_kernels, lower_native
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.image_folders import draw
from tests.support.nets import images, residual, split
from tests.support.places import ROOT

READMES = readmes(ROOT)
Names = dict[str, Any]
every_readme = pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.relative_to(ROOT)))


def blocks_of(readme: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", readme.read_text(), re.DOTALL | re.MULTILINE)


def prose(readme: Path) -> str:
    """Return what stands outside of fenced blocks and comments."""
    text = re.sub(r"^```.*?^```$", "", readme.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


PYTHON = [
    pytest.param(readme, block, id=f"{readme.parent.relative_to(ROOT)}-{i}")
    for readme in READMES
    for i, block in enumerate(
        block for language, block in blocks_of(readme) if language == "python"
    )
]


def assert_equal_weights(left: nn.Module, right: nn.Module) -> None:
    for name, tensor in left.state_dict().items():
        assert tensor.equal(right.state_dict()[name]), name


def your_own_model(found: Names, printed: str) -> None:
    assert isinstance(found["again"], StaticQuantizedModel)
    assert_equal_weights(found["small"], found["again"])
    size, shape = printed.splitlines()
    assert float(size.removesuffix(" MiB")) < 11
    assert shape == "torch.Size([8, 10])"


def small_files(found: Names, printed: str) -> None:
    assert_equal_weights(found["tuned"], found["again"])
    weight = found["again"].get_submodule("14").weight
    assert len(weight.unique()) <= 32
    assert (weight == 0).float().mean() > 0.8


def your_own_workload(found: Names, printed: str) -> None:
    mine = found["MINE"]
    assert isinstance(mine, Workload)
    assert mine.data(None).train.inputs(slice(0, 2)).shape == (2, 3, 8, 8)


def flowers() -> Names:
    draw(Path("flowers"))
    return {}


def your_own_images(found: Names, printed: str) -> None:
    mine = found["MINE"]
    assert isinstance(mine, Workload)
    assert isinstance(mine.data, ImageFolder)
    image, num_classes = mine.data.example()
    assert (image.shape, num_classes) == ((1, 3, 64, 64), 3)
    check_before_reading(mine, None)


def your_own_task(found: Names, printed: str) -> None:
    task = found["LOUDNESS"]
    data = task.data(None)
    check_outputs(task, data)
    assert judged(task.network(), data.test, task.metric)["score_unit"] == "mV"


def a_technique_of_your_own(found: Names, printed: str) -> None:
    model = residual()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruned = found["prune_threshold_unstructured"](model, threshold=0.1)
    weight = pruned.get_submodule("conv1").weight.detach()
    assert 0 < int((weight == 0).sum()) < weight.numel()
    assert float(weight[weight != 0].abs().min()) >= 0.1
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def a_row_of_your_own(found: Names, printed: str) -> None:
    row = found["row"]
    assert isinstance(row, Technique)
    assert row.targets["digits"].drop == 0.01


def an_executor_of_your_own(found: Names, printed: str) -> None:
    assert isinstance(found["row"], Executor)
    assert found["row"].lower is lower_native


def a_bug_looked_for(found: Names, printed: str) -> None:
    assert found["node"] in {n.name for n in found["small"].network.graph.nodes}
    if has_integer_kernels("cpu"):
        assert printed == ""


def channels_that_are_gone(found: Names, printed: str) -> None:
    assert_equal_weights(found["tuned"], found["again"])
    assert found["small"][0].out_channels == 32
    assert printed.startswith("Conv2d(3, 32,")
    assert "outputs" in printed


def a_dataset_of_your_own(found: Names, printed: str) -> None:
    assert isinstance(found["small"], StaticQuantizedModel)
    assert sparsity(found["tuned"]) >= 0.49
    assert printed.startswith("tensor(0.")


def student() -> nn.Module:
    torch.manual_seed(0)
    return Architecture("five-layer-cnn", 10)().eval()


def digits_like() -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(32, 3, 32, 32, generator=generator)
    return Split(pixels, torch.arange(32) % 10, prepare=lambda x: x)


def a_group_of_one() -> Names:
    """Give the names of a script that torchrun starts, and the environment."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(place)
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.01)
    return {"model": student(), "train": digits_like(), "recipe": recipe, "place": place}


def trained_together(found: Names, printed: str) -> None:
    torch.distributed.destroy_process_group()
    for name in found["place"]:
        del os.environ[name]
    assert_equal_weights(found["tuned"], load("tuned.safetensors", student))


def read(part: str) -> tuple[Any, Any]:
    return split().images.abs().byte(), split().labels


def no_names() -> Names:
    return {}


# What a block contains: the names that its reader has, and what is then true.
BLOCKS: dict[str, tuple[Callable[[], Names], Callable[[Names, str], None]]] = {
    "fast = deploy(again": (no_names, your_own_model),
    "share_weights(sparse": (
        lambda: {
            "model": student(),
            "train": digits_like(),
            "recipe": Recipe(epochs=1, batch_size=16, learning_rate=0.01),
        },
        small_files,
    ),
    "train = StreamedSplit(": (no_names, a_dataset_of_your_own),
    "init_process_group": (a_group_of_one, trained_together),
    "small = remove_channels(": (no_names, channels_that_are_gone),
    "MINE = Workload(": (flowers, your_own_images),
    "MINE = replace": (lambda: {"build": residual, "read": read}, your_own_workload),
    "LOUDNESS = replace": (no_names, your_own_task),
    "def prune_threshold_unstructured": (no_names, a_technique_of_your_own),
    "row = Technique(": (no_names, a_row_of_your_own),
    "row = Executor(": (lambda: {"lower": lower_native}, an_executor_of_your_own),
    "code_differences(small": (
        lambda: {"small": quantize_static(residual(), images()), "images": images()},
        a_bug_looked_for,
    ),
}


@pytest.mark.parametrize(("readme", "block"), PYTHON)
def test_a_block_of_python_runs(
    readme: Path,
    block: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = [entry for part, entry in BLOCKS.items() if part in block]
    assert len(entries) == 1, f"{readme.relative_to(ROOT)}: no entry of BLOCKS for\n{block}"
    ((names_of, check),) = entries
    names = names_of()
    exec(block, names)
    check(names, capsys.readouterr().out)


def test_every_entry_of_the_table_has_its_block() -> None:
    blocks = "".join(str(parameter.values[1]) for parameter in PYTHON)
    assert [part for part in BLOCKS if part not in blocks] == []


def test_the_front_door_is_short_and_leads_to_every_readme() -> None:
    lines = READMES[0].read_text().splitlines()
    assert len(lines) <= 120
    head = "\n".join(lines[:40])
    assert all(part in head for part in ("pip install", "pytest benchmarks/", "pytest -n 2"))
    linked = {target for _, target in links(READMES[0])}
    assert [r for r in READMES[1:] if str(r.relative_to(ROOT)) not in linked] == []


@every_readme
def test_no_line_is_wide(readme: Path) -> None:
    text = re.sub(r"<!-- facts -->.*?<!-- end -->", "", readme.read_text(), flags=re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 120] == []


def links(readme: Path) -> Iterator[tuple[str, str]]:
    """Yield the text and the target of each link and image that leads to no other site."""
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(readme)):
        if "://" not in target:
            yield text, target


def anchors(readme: Path) -> set[str]:
    """Return what GitHub calls the headings of a file."""
    headings = re.findall(r"^#+ (.+)$", prose(readme), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_readme
def test_every_link_and_anchor_leads_somewhere(readme: Path) -> None:
    for text, target in links(readme):
        path, _, anchor = target.partition("#")
        file = (readme.parent / path).resolve() if path else readme
        assert file.exists(), f"[{text}]({target})"
        if anchor:
            assert anchor in anchors(file), f"[{text}]({target})"


def commands(readme: Path) -> Iterator[list[str]]:
    """Yield the words of each command: of fenced bash, and of code in sentences."""
    blocks = [
        block.replace("\\\n", " ") for language, block in blocks_of(readme) if language == "bash"
    ]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", prose(readme))
    for line in lines:
        for command in re.split(r"&&|\|", line):
            if re.match(r"\s*(\w+=\S+ )*(python|pytest|\.ci/)", command):
                yield shlex.split(command, comments=True)


@every_readme
def test_every_module_and_path_of_a_command_exists(readme: Path) -> None:
    for words in commands(readme):
        if "python" in words and "-m" in words:
            module = words[words.index("-m") + 1]
            path = ROOT / module.replace(".", "/")
            known = module == "venv" or path.with_suffix(".py").is_file() or path.is_dir()
            assert known, words
        for word in words:
            if word.endswith(("/", ".py")) or word.startswith(("benchmarks/", "tests/", ".ci/")):
                assert (ROOT / word).exists(), words


def test_the_commands_that_are_looked_at_are_the_ones_that_stand_there() -> None:
    found = {" ".join(words) for readme in READMES for words in commands(readme)}
    assert {"pytest benchmarks/", "pytest -n 2", "python -m benchmarks.report.documents"} <= found


@every_readme
def test_every_option_of_a_command_exists(readme: Path, pytestconfig: pytest.Config) -> None:
    known = options(pytestconfig)
    for words in commands(readme):
        if "pytest" in words:
            named = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert named <= known, words


def options(config: pytest.Config) -> set[str]:
    """Return the long and short names of every option of this pytest."""
    parser = config._parser
    groups = [*parser._groups, parser._anonymous]
    return {name for group in groups for option in group.options for name in option.names()}


def section(readme: Path, heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    return readme.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_every_option_and_workload_of_the_table_exists(pytestconfig: pytest.Config) -> None:
    table = section(ROOT / "benchmarks/README.md", "Options")
    named = set(re.findall(r"--[a-z][a-z-]+", table))
    assert {"--workload", "--figures", "--device", "--baseline", "--num-threads"} <= named
    assert named - options(pytestconfig) == set()
    markers = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert set(re.findall(r"`-m (\w+)`", table)) <= markers
    assert [name for name in WORKLOADS if f"| `{name}` |" not in table] == []


def test_the_gate_s_numbers_are_those_of_its_rules() -> None:
    gate = section(ROOT / "benchmarks/README.md", "How the gate decides")
    tolerances = {name: tolerance for name, (tolerance, _) in TOLERANCES.items()}
    for part in (
        f"more than {tolerances['size of other weights']:.1%} where the baseline",
        f"one-sided, {tolerances['accuracy']:.1%}",
        f"more than {tolerances['speed-up']:.0%} above",
        f"may take {tolerances['waking, ms']:g} ms more",
        f"at most {tolerances['waking']:.0%} of",
        f"wider than {tolerances['width']:g}x",
        f"off by more than {tolerances['speed-up']:.0%}",
    ):
        assert part in gate
    measured = section(ROOT / "benchmarks/README.md", "How a number is measured")
    assert f"up to {MAX_PAIRS} predictions" in measured


def test_the_verbs_of_the_tables_are_the_package_s() -> None:
    import compression

    for readme, heading in (
        (ROOT / "README.md", "Which technique for which need"),
        (ROOT / "compression/README.md", "The techniques"),
    ):
        verbs = set(re.findall(r"`([a-z]+_\w+|[a-z]{4,})(?:\(|`)", section(readme, heading)))
        assert {"fine_tune", "quantize_static", "distill"} <= verbs
        assert (
            sorted(verbs - set(compression.__all__) - {"compression", "bfloat16", "distilled"})
            == []
        )
    named = set(re.findall(r"`(\w+)`", section(ROOT / "compression/README.md", "The techniques")))
    techniques = {verb for verb in compression.__all__ if verb.startswith(("prune", "quantize"))}
    assert techniques <= named
