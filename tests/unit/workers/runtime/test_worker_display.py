import io

from workers.protocol.progress import Progress
from workers.runtime.progress_display import Bar, Lines, display_for

MIDDLE = Progress("training", 5, 10, 1, 2, 1234.5, 65.0, {"train/loss": 0.25})


def test_a_pipe_gets_plain_lines_and_not_too_many():
    stream = io.StringIO()
    with display_for(stream) as display:
        for _ in range(100):
            display.show(MIDDLE)
    assert stream.getvalue() == "training  epoch 1/2  step 5/10  ETA 0:01:05  1234 images/s  train/loss 0.25\n"
    assert isinstance(display, Lines)


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with display_for(stream) as display:
        display.show(MIDDLE)
    assert isinstance(display, Bar)
    assert "50%" in stream.getvalue()
    assert "ETA 0:01:05" in stream.getvalue()


def test_the_other_ranks_are_quiet():
    stream = io.StringIO()
    with display_for(stream, quiet=True) as display:
        display.show(MIDDLE)
    assert stream.getvalue() == ""
