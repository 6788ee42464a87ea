"""The cost of a workload on many devices, from rates that were measured on one."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost import Rates, Work, estimate, main, read_rates, render, training_hours
from compression.errors import CompressionError
from tests.support.places import ROOT

WORK = Work(
    train_images=36_000, test_images=7_200, calibration_images=100, epochs=10, batch_size=100
)
RATES = Rates(100.0, 1_000.0, 10**9, {"long": (7_200.0, 10**8), "short": (360.0, 10**7)})
TINY = "tests.support.workloads:TINY"


def test_training_divides_by_devices_and_pays_for_the_ring() -> None:
    alone = training_hours(WORK, RATES, 1, bandwidth=1e9)
    assert alone == pytest.approx(1.0)
    assert training_hours(WORK, RATES, 4, bandwidth=1e30) == pytest.approx(alone / 4)
    steps = 10 * 36_000 / 400
    ring_s = 2 * 3 / 4 * 1e9 / 1e9
    assert training_hours(WORK, RATES, 4, bandwidth=1e9) == pytest.approx(
        alone / 4 + steps * ring_s / 3600
    )
    divided = training_hours(WORK, RATES, 4, bandwidth=1e9, divide=True)
    assert divided == pytest.approx(alone / 4 + 4 * steps * ring_s / 3600), "as many steps as alone"


def test_of_a_divided_batch_a_device_has_one_image_at_least() -> None:
    most, more = (training_hours(WORK, RATES, n, bandwidth=1e30, divide=True) for n in (100, 1000))
    assert most == pytest.approx(more)


def test_the_sweep_lasts_as_long_as_its_longest_technique() -> None:
    rows = {name: hours for name, _, hours in estimate(WORK, RATES, [1, 2, 1000], bandwidth=1e30)}
    evaluation = 7_200 / 1_000 / 3600
    assert rows["long"] == pytest.approx([2 + evaluation] * 3)
    assert rows["all"][0] == pytest.approx(rows["baseline"][0] + 2.1 + 3 * evaluation)
    assert rows["all"][2] == pytest.approx(rows["baseline"][2] + 2 + evaluation)
    assert rows["calibration"][0] == pytest.approx(0.1 / 3600)


def run_json(**changed: Any) -> dict[str, Any]:
    found = ROOT / "benchmarks" / "references" / "digits-cpu.json"
    return json.loads(found.read_text()) | changed


def test_rates_come_from_a_saved_run_of_the_workload(tmp_path: Path) -> None:
    path = ROOT / "benchmarks" / "references" / "digits-cpu.json"
    rates = read_rates(path, "digits", 50.0)
    entries = {e["name"]: e for e in run_json()["benchmarks"]}
    assert (
        rates.checkpoint_bytes == entries["test_size[cpu-baseline]"]["extra_info"]["stored_bytes"]
    )
    took = entries["test_cost[cpu-static-int8]"]["extra_info"]["seconds"]
    assert rates.techniques["static-int8"][0] == took
    assert rates.train_images_per_s == 50.0
    with pytest.raises(
        CompressionError, match=r"has no training .-m training., and --train-rate is"
    ):
        read_rates(path, "digits")
    with pytest.raises(CompressionError, match="a run of workload digits, not of cifar10"):
        read_rates(path, "cifar10", 50.0)


def test_the_command_prints_a_table_from_a_file_of_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rates.json"
    known = {"train_images_per_s": 32, "evaluate_images_per_s": 16, "checkpoint_bytes": 10**9}
    path.write_text(json.dumps(known))
    main(["--workload", TINY, "--rates", str(path), "--train-images", "115200000"])
    out = capsys.readouterr().out
    assert "tiny: 115,200,000 images, 2 epochs, batch " in out
    assert "32 images/s trained, 16 evaluated" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("baseline ")]
    assert row[1:3] == ["3", "2e+03"]
    assert max(map(len, out.splitlines())) <= 100


def test_a_probe_measures_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--workload", TINY, "--devices", "1,2"])
    (row,) = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("all ")
    ]
    assert all(float(number) > 0 for number in row[1:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--devices", "1,x"], "--devices: expected numbers from 1 with commas, found '1,x'"),
        (["--devices", "0"], "--devices: expected numbers from 1"),
        (["--bandwidth", "0"], "--bandwidth must be positive, found 0"),
        (["--rates", "/no/such/file"], "--rates /no/such/file: cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(options: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        main(["--workload", TINY, *options])


def test_rates_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CompressionError, match="train_images_per_s must be a positive number, found 0"
    ):
        Rates(0, 1, 1)
    (tmp_path / "r.json").write_text('{"images": 3}')
    with pytest.raises(CompressionError, match="expected a saved run, or an object of"):
        read_rates(tmp_path / "r.json", "digits")
    with pytest.raises(CompressionError, match="do not fit 100 columns"):
        render([("a", 1.0, [1.0] * 40)], [1000] * 40)
