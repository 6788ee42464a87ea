"""A process answers, reports its errors, and reports its end."""

import pytest

from benchmarks.machine.process import Process
from compression.errors import CompressionError

SERVER = """
import sys
from benchmarks.machine.process import serve
from compression.errors import CompressionError
def answer(do):
    print("noise of a library")
    if do == "fail":
        raise CompressionError("the file is empty")
    if do == "die":
        print("out of memory", file=sys.stderr, flush=True)
        sys.exit(3)
    return {"did": do}
serve(answer)
"""


def test_a_process_answers_says_its_errors_and_its_end(tmp_path, monkeypatch) -> None:
    (tmp_path / "made_up_server.py").write_text(SERVER)
    monkeypatch.syspath_prepend(tmp_path)
    process = Process("made_up_server", {}, log=tmp_path / "log")
    assert process.ask(do="this") == {"did": "this"}
    with pytest.raises(CompressionError, match="the file is empty"):
        process.ask(do="fail")
    assert process.ask(do="that") == {"did": "that"}
    with pytest.raises(CompressionError, match=r"(?s)ended \(3\).*out of memory") as ended:
        process.ask(do="die")
    assert "made_up_server" in str(ended.value)
    process.close()
