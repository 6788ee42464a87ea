"""Try every function on other people's networks: `python -m benchmarks.coverage [-o FILE] [NAME...]`.

A NAME is one of torchvision's classification networks, or timm:NAME. Prints the table as Markdown, or
writes it to FILE; exit status 1 where a cell is WRONG.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torchvision

from benchmarks.coverage import COLUMNS, Case, Cell, cell_of, markdown
from benchmarks.coverage.report import summary
from compression.architectures import Architecture
from compression.atomic import write_atomically
from compression.errors import CompressionError

FAMILIES = """
alexnet vgg11 resnet18 resnext50_32x4d wide_resnet50_2 densenet121 googlenet inception_v3 squeezenet1_1
mobilenet_v2 mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x1_0 mnasnet0_5 efficientnet_b0
efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny vit_b_16 swin_t maxvit_t
"""
"""One network per family and kind of block, the smallest."""


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default one per family")
    parser.add_argument("--all", action="store_true", help="every classification network")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="instead of stdout")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Make the table of the networks that are named."""
    parser = argument_parser()
    options = parser.parse_args(arguments)
    known = torchvision.models.list_models(torchvision.models)
    names = known if options.all else options.names or FAMILIES.split()
    try:
        for name in names:
            Architecture(name, 1)
    except CompressionError as error:
        parser.error(str(error))
    if options.output and not options.output.parent.is_dir():
        parser.error(f"{options.output}: the folder {options.output.parent} does not exist")
    warnings.simplefilter("ignore")  # torchvision's, of how weights will be drawn
    table = {name: _row(name) for name in names}
    given = ["--all"] * options.all + options.names
    command = " ".join(["python -m benchmarks.coverage", *given])
    page = markdown(table, [heading for heading, _ in COLUMNS], command)
    if options.output:
        try:
            write_atomically(options.output, page.encode())
        except CompressionError as error:
            parser.error(str(error))
        print(summary(table))
    else:
        print(page, end="")
    return int(any(cell.outcome == "WRONG" for row in table.values() for cell in row))


def _row(name: str) -> list[Cell]:
    """Try every function on a network, and say on stderr what is wrong."""
    print(name, file=sys.stderr, flush=True)
    case = Case(name)
    row = [cell_of(check, case) for _, check in COLUMNS]
    for (heading, _), cell in zip(COLUMNS, row, strict=True):
        if cell.outcome == "WRONG":
            print(f"  {heading}: {cell.about}", file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
